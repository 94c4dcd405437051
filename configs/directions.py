"""The study's training on synthetic motion: a ViT-B trained on moving discs, 5,000 steps of 16 clips of 8×128×128.

Source:    arXiv:2605.17165 (`train_synth_*` of its public code, commit 3588723): 100 × 50 steps, 50 of them warm-up;
           everything else as in its other runs. The clips are rendered here, not read from H.264 files, and are not
           cropped or flipped (docs/directions.md).
Command:   python -m jepa_jax.train --config configs/directions.py[:RECIPE] --workdir DIR
           The study ran `kinematic` (the default) and `sigreg_no_ema`, both without EMA. With EMA they are `baseline`
           (the kinematic term has no gradient then) and `sigreg`. `baseline_no_ema` is the control of both.
Hardware:  not yet run at full size.
Expected:  not yet measured, and no published figures. The study's 27.5 % (baseline), 67.5 % and 72.5 % (kinematic 1
           and 0.1) on eval/directions are of its UCF-101 runs; the last two are of untrained encoders.
"""

import ml_collections

from jepa_jax import recipes
from jepa_jax.config import Config, SourceConfig, defaults
from jepa_jax.settings import to_config_dict


def get_config(recipe: str = "kinematic") -> ml_collections.ConfigDict:
    config = defaults(Config)
    config.steps = 5000
    config.batch_size = 16
    config.clip.frames, config.clip.size = 8, 128
    config.optim.warmup_steps = 50
    config.data.sources.discs = to_config_dict(SourceConfig(kind="moving_discs"))
    config.probe = "configs/eval/directions.py"
    return recipes.apply(config, recipe)
