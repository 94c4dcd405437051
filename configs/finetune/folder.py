"""Fine-tunes an encoder on your own labelled videos.

Source:    layer-wise learning rates as in BEiT (arXiv:2106.08254) and MAE (arXiv:2111.06377); head: the mean token.
Command:   python -m jepa_jax.finetune --config configs/finetune/folder.py --config.init=WEIGHTS \
               --config.data.path=VIDEOS --config.holdout=REGEX --workdir DIR
           WEIGHTS is WORKDIR or WORKDIR:STEP of a training run, a file or folder of released weights, or a model on
           the Hugging Face hub. For released weights also set --config.clip.size=256 --config.clip.frames=16.
Data:      VIDEOS is a folder of CLASS/clip.mp4 (also avi, mkv, webm and others), or a CSV file of `path label` lines.
           Clips whose path relative to VIDEOS matches --config.holdout are the test set. If it is a separate folder,
           omit holdout and use --config.test.path. A training clip is every second frame of a random window; the
           probabilities of three windows of a test video are averaged.
Hardware:  two CPU cores train about 10 clips/s of an encoder of configs/folder.py; a GPU is many times faster.
Expected:  depends on the videos; docs/finetuning.md has measurements on UT-Interaction.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.settings import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = defaults(FinetuneConfig)
    config.steps = 1000
    config.batch_size = 16
    config.dtype = "float32"
    config.clip.frames, config.clip.size = 8, 112
    config.data.path = path = ml_collections.FieldReference("")
    config.data.sources.videos = to_config_dict(SourceConfig(kind="videos"))
    config.data.sources.videos.path = path
    config.views.clips = 3
    config.views.frame_step = config.data.sources.videos.frame_step = 2
    config.checkpoint.every = 200
    return config
