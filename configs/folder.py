"""Trains on your own videos, optionally mixed with images, at a size for one machine.

Source:    the baseline of arXiv:2605.17165 with a smaller model: ViT of width 192, clips of 8×112×112.
Command:   python -m jepa_jax.train --config configs/folder.py --config.data.path=VIDEOS --workdir DIR
           with images: --config.data.sources.images.path=IMAGES --config.data.sources.images.weight=0.25
Data:      VIDEOS is a folder (CLASS/clip.mp4 or only clips; also avi, mkv, mov, webm, mpg) or a CSV file of `path
           label` lines. Training does not use labels. IMAGES is a folder of images; each is used as a still clip.
Hardware:  two CPU cores train about 10 clips/s (docs/measurements.md); a GPU is many times faster.
Expected:  depends on the videos.
"""

import ml_collections

from jepa_jax import recipes
from jepa_jax.config import Config, SourceConfig, defaults
from jepa_jax.settings import to_config_dict


def get_config(recipe: str = "baseline") -> ml_collections.ConfigDict:
    config = defaults(Config)
    config.steps = 10_000
    config.batch_size = 16
    config.dtype = "float32"
    config.clip.frames, config.clip.size = 8, 112
    config.encoder.size = "vit_tiny"
    config.predictor.size = "96x8x3"
    config.ema.decay = 0.996
    config.data.path = path = ml_collections.FieldReference("")
    config.data.sources.videos = to_config_dict(SourceConfig(kind="videos", frame_step=2))
    config.data.sources.videos.path = path
    config.data.sources.images = to_config_dict(SourceConfig(kind="images", weight=0.0))
    config.checkpoint.every = 200
    return recipes.apply(config, recipe)
