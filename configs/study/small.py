"""The study's data at a size for one GPU: a ViT-S on clips of 8×112×112, 20,000 steps of 64 clips a run.

    python -m jepa_jax.study --config study/small --workdir DIR --config.data.root=DATA --plan

Data: as configs/study/paper.py.
Hardware: not yet run.
"""

import ml_collections

from jepa_jax import config_files
from jepa_jax.study.study_config import StudyConfig


def get_config() -> ml_collections.ConfigDict:
    config = config_files.load_named("study/paper")
    config.name = "small"
    config.train.steps, config.train.batch_size = 20_000, 64
    config.train.clip.frames, config.train.clip.size = 8, 112
    config.train.encoder.size, config.train.predictor.size = "vit_small", "192x6x6"
    config.train.encoder.remat = "none"
    defaults = StudyConfig()
    config.primary_seeds, config.secondary_seeds = defaults.primary_seeds, defaults.secondary_seeds
    return config
