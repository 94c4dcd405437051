"""The question of the study (arXiv:2605.17165) on sprites, at a size for a laptop.

    python -m jepa_jax.study --config study/laptop --workdir DIR --plan
    python -m jepa_jax.study --config study/laptop --workdir DIR [--jobs=N]

Every recipe is trained with the settings of configs/quickstart.py and probed with those of configs/eval/sprites.py,
during training and at its end. To continue the study from the records in this repository, copy them first:
cp -r results/laptop DIR/results.

Data: none; sprites are rendered.
Hardware: two CPU cores; docs/study.md has times.
"""

import ml_collections

from jepa_jax import config_files, recipes
from jepa_jax.config import defaults
from jepa_jax.study.study_config import StudyConfig

PRIMARY = (
    "baseline",
    "baseline_no_ema",
    "fwm",
    "ld",
    "hw",
    "hw_ld",
    "fwm_hw_ld",
    "fwm_hw_ld_paper_code",
    "kinematic",
    "sigreg",
    "fwm_sigreg",
)
CONTRASTS = (
    *((recipe, "baseline") for recipe in ("fwm_hw_ld", "fwm_hw_ld_paper_code", "fwm", "ld", "hw")),
    ("kinematic", "baseline_no_ema"),
    ("fwm_sigreg", "sigreg"),
)


def get_config() -> ml_collections.ConfigDict:
    config = defaults(StudyConfig)
    config.name = "laptop"
    config.train = config_files.load_named("quickstart")
    config.train.audit.every = config.train.log.features_every
    config.evaluations.sprites = config_files.load_named("eval/sprites")
    # Encoding shuffled and single-frame clips would double the time of the probes.
    config.evaluations.sprites.controls = ("frame differences", "raw pixels", "frame means", "difference energy")
    config.primary = PRIMARY
    config.secondary = tuple(recipe for recipe in recipes.RECIPES if recipe not in PRIMARY)
    config.contrasts = CONTRASTS
    return config
