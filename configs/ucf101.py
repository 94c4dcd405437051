"""The study's first regime at full size: a ViT-B trained on UCF-101, 30,000 steps of 32 clips of 16×224×224.

Source:    arXiv:2605.17165, regime `ucf101` (UCF-101 split 1 train; a frame step of ⌈fps⌉ // 16).
Command:   python -m jepa_jax.train --config configs/ucf101.py[:RECIPE] --config.data.root=DATA --workdir DIR
Data:      DATA/ucf101, made by: python -m jepa_jax.prepare ucf101 --source RAW --out DATA/ucf101
           To use unprepared files: --config.data.sources.ucf101.path=FILES, a folder CLASS/clip.avi or a CSV file of
           `path label` lines. To use another official split: --config.data.sources.ucf101.fold=2.
Hardware:  not yet run; compiled for 16 TPU v5e chips, a step takes 3 of the 16 GiB per chip (docs/measurements.md).
Expected:  not yet measured. The study's baseline: Diving-48 8.38, ImageNet-100 12.02, SSv2 2.07, UCF-101 23.79 %.
"""

import ml_collections

from jepa_jax import recipes
from jepa_jax.config import Config, SourceConfig, defaults
from jepa_jax.settings import to_config_dict


def get_config(recipe: str = "baseline") -> ml_collections.ConfigDict:
    config = defaults(Config)
    config.encoder.remat = "full"  # the highest bound on clips/s for TPU v5e (docs/measurements.md)
    config.data.root = root = ml_collections.FieldReference("data")
    config.data.sources.ucf101 = to_config_dict(SourceConfig(kind="videos", target_fps=16, window="linspace"))
    config.data.sources.ucf101.path = root + "/ucf101"
    config.data.workers = 12
    return recipes.apply(config, recipe)
