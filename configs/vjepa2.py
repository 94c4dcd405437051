"""Pretraining at the scale of V-JEPA 2 on pods: ViT-L or ViT-g, 16 frames of 256×256 at 4 frames/s, batch 3072.

Source:    V-JEPA 2 (arXiv:2506.09985): predictor of width 384 and depth 12 with 12 heads, one level, `tiled` rotary
           positions, both of its masks, L1 on targets, EMA 0.99925, learning rate 1e-4 → 5.25e-4 in 12,000 steps, then
           constant, weight decay 0.04. Without the last phase (cool-down at 64 frames) and the data (VideoMix22M).
Command:   python -m jepa_jax.train --config configs/vjepa2.py:vit_large --config.data.path=DATA --workdir DIR
Argument:  the encoder, in the sizes of released weights: vit_base, vit_large (300 M parameters), vit_huge, vit_giant
           (1 B, 22 heads) or vit_gigantic (2 B).
Data:      DATA is a folder CLASS/clip.mp4, or a CSV file of `path label` lines.
Hardware:  not run; compiled for v5p slices (docs/measurements.md).
Expected:  not yet measured.
"""

import ml_collections

from jepa_jax.config import Config, SourceConfig, defaults
from jepa_jax.settings import to_config_dict

RELEASED = {"vit_giant": "vit_giant_xformers"}  # released weights have 22 heads, where vit_giant has 16


def get_config(encoder: str = "vit_large") -> ml_collections.ConfigDict:
    config = defaults(Config)
    config.steps = 240_000
    config.batch_size = 3072
    config.clip.size = 256
    config.encoder.size, config.encoder.levels, config.encoder.rotary = RELEASED.get(encoder, encoder), 1, "tiled"
    config.encoder.remat = "full"
    config.predictor.size = "384x12x12"
    config.objectives.context_prediction.coefficient = 0.0
    config.optim.start_lr, config.optim.peak_lr, config.optim.final_lr = 1e-4, 5.25e-4, 5.25e-4
    config.optim.warmup_steps = 12_000
    config.mesh.fsdp = 8
    config.data.path = path = ml_collections.FieldReference("data/videos.csv")
    config.data.sources.videos = to_config_dict(SourceConfig(kind="videos", target_fps=4))
    config.data.sources.videos.path = path
    config.data.workers = 24
    return config
