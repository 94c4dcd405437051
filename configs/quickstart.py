"""Three minutes from clone to a probed Video-JEPA: sprites that need no download, a tiny model.

Command:   python -m jepa_jax.train --config configs/quickstart.py
"""

import ml_collections

from jepa_jax.config import Config, SourceConfig, defaults, to_config_dict
from jepa_jax.objectives import recipes


def get_config(recipe: str = "baseline") -> ml_collections.ConfigDict:
    config = defaults(Config)

    config.steps = 1000
    config.batch_size = 32
    config.dtype = "float32"
    config.clip.frames, config.clip.size = 8, 64
    config.encoder.size, config.encoder.patch = "96x4x3", 8
    config.predictor.size = "48x2x3"
    config.optim.warmup_steps = 100
    config.data.sources.sprites = to_config_dict(SourceConfig(kind="sprites", difficulty="easy"))
    config.log.features_every = 50
    config.checkpoint.every = 200
    config.probe = ""
    return recipes.apply(config, recipe)
