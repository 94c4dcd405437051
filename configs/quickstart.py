"""Trains and probes a tiny Video-JEPA in minutes, on sprites that need no download.

Source:    the baseline of arXiv:2605.17165 at toy size, with a faster target (EMA 0.97), a higher learning rate and a
           shorter memory of squared gradients (beta2 0.95), since the run has only 320 steps.
Command:   python -m jepa_jax.train --config configs/quickstart.py[:RECIPE]
Hardware:  two CPU cores, 1.6 GB. Wall time: minutes (docs/measurements.md).
Expected:  motion 64.6 % (untrained 41.5 %), order of events 30.3 % (14.6 %), appearance 35.3 % (11.9 %), seed 239.
"""

import ml_collections

from jepa_jax import recipes
from jepa_jax.config import Config, SourceConfig, defaults
from jepa_jax.settings import to_config_dict


def get_config(recipe: str = "baseline") -> ml_collections.ConfigDict:
    config = defaults(Config)
    config.steps = 320
    config.dtype = "float32"
    config.clip.frames, config.clip.size = 8, 32
    config.encoder.size, config.encoder.patch = "128x4x4", 8
    config.predictor.size = "64x2x2"
    config.optim.peak_lr = config.optim.final_lr = 4e-3
    config.optim.warmup_steps = 80
    config.optim.beta2 = 0.95
    config.ema.decay = 0.97
    config.data.sources.sprites = to_config_dict(SourceConfig(kind="sprites", difficulty="easy"))
    config.log.features_every = 40
    config.checkpoint.every = 160
    config.probe = "configs/eval/quickstart.py"
    return recipes.apply(config, recipe)
