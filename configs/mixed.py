"""The study's second regime at full size: a ViT-B trained on videos and still images, 30,000 steps of 32 clips.

Source:    arXiv:2605.17165, regime `mixed` (UCF-101 : Something-Something V2 : ImageNet-100 = 0.2 : 0.6 : 0.2; every
           second frame; an image is a still clip).
Command:   python -m jepa_jax.train --config configs/mixed.py[:RECIPE] --config.data.root=DATA --workdir DIR
Data:      DATA/{ucf101,something_something_v2,imagenet100}, each made by: python -m jepa_jax.prepare SET --source RAW
           --out DATA/SET. To use unprepared files: --config.data.sources.ssv2.path=FILES, a folder CLASS/file or, for
           videos, a CSV file of `path label` lines.
Hardware:  not yet run; compiled for 16 TPU v5e chips, a step takes 3 of the 16 GiB per chip (docs/measurements.md).
Expected:  not yet measured. The study's baseline (its seed 42): Diving-48 8.68, ImageNet-100 24.86, SSv2 8.39 %.
"""

import ml_collections

from jepa_jax import recipes
from jepa_jax.config import Config, SourceConfig, defaults
from jepa_jax.settings import to_config_dict

SOURCES = {
    "ucf101": ("ucf101", SourceConfig(kind="videos", frame_step=2, window="linspace", weight=0.2)),
    "ssv2": ("something_something_v2", SourceConfig(kind="videos", frame_step=2, window="linspace", weight=0.6)),
    "imagenet100": ("imagenet100", SourceConfig(kind="images", weight=0.2)),
}


def get_config(recipe: str = "baseline") -> ml_collections.ConfigDict:
    config = defaults(Config)
    config.encoder.remat = "full"  # the highest bound on clips/s for TPU v5e (docs/measurements.md)
    config.data.root = root = ml_collections.FieldReference("data")
    for name, (prepared, source) in SOURCES.items():
        config.data.sources[name] = to_config_dict(source)
        config.data.sources[name].path = root + f"/{prepared}"
    config.data.workers = 12
    return recipes.apply(config, recipe)
