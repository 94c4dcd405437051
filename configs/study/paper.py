"""The study itself (arXiv:2605.17165, regime `mixed`) with several seeds: a ViT-B, 30,000 steps of 32 clips a run.

    python -m jepa_jax.study --config study/paper --workdir gs://BUCKET/study --config.data.root=DATA --plan

Data: those of configs/mixed.py and of the three evaluations, prepared in DATA. Videos are read on every machine, so
DATA is a path that all of them have.
Hardware: not yet run. Each process trains whole runs on its own devices; docs/study.md says how to start many.
"""

import ml_collections

from jepa_jax import config_files, recipes
from jepa_jax.config import defaults
from jepa_jax.study.study_config import StudyConfig

PRIMARY = ("baseline", "baseline_no_ema", "fwm", "ld", "hw", "fwm_hw_ld", "fwm_hw_ld_paper_code", "kinematic")
EVALUATIONS = ("diving48", "imagenet100", "ssv2")


def get_config() -> ml_collections.ConfigDict:
    config = defaults(StudyConfig)
    config.name = "paper"
    config.data.root = root = ml_collections.FieldReference("data")
    config.train = config_files.load_named("mixed")
    config.train.data.root = root
    config.train.audit.every = 1000
    for name in EVALUATIONS:
        config.evaluations[name] = config_files.load_named(f"eval/{name}")
        config.evaluations[name].data.root = root
    config.primary, config.primary_seeds = PRIMARY, 5
    config.secondary = tuple(
        name for name, recipe in recipes.RECIPES.items() if "mixed" in recipe.regimes and name not in PRIMARY
    )
    config.contrasts = (
        *((recipe, "baseline") for recipe in ("fwm_hw_ld", "fwm_hw_ld_paper_code", "fwm", "ld", "hw")),
        ("kinematic", "baseline_no_ema"),
    )
    return config
