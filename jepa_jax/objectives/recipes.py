"""The table of the study: which objectives there are, and what each recipe changes in the baseline."""

import difflib
from typing import Any

import ml_collections

from jepa_jax.objectives import base, prediction

OBJECTIVES: dict[str, type] = {
    "prediction": prediction.Prediction,
    "context_prediction": prediction.ContextPrediction,
}

FOLLOW_MOTION = {"motion_strength": 2.0, "motion_random_rate": 0.1}
FOLLOW_MOTION_ONLY = {"motion_strength": 5.0, "motion_random_rate": 0.0}
PREDICT_FUTURE = {"short": {"blocks": 4, "temporal_keep": 0.5}, "long": {"blocks": 1, "temporal_keep": 0.5}}

# What each recipe of arXiv:2605.17165 changes; `baseline_no_ema` is the control that its EMA-off recipes lack.
RECIPES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "baseline_no_ema": {"ema": {"enabled": False}},
    "motion_guided": {"masks": {"short": FOLLOW_MOTION, "long": FOLLOW_MOTION}},
    "amg": {"masks": {"short": FOLLOW_MOTION_ONLY, "long": FOLLOW_MOTION_ONLY}},
    "future_predictive": {"masks": PREDICT_FUTURE},
    "motion_future": {"masks": {name: mask | FOLLOW_MOTION for name, mask in PREDICT_FUTURE.items()}},
}


def baseline() -> dict[str, base.Objective]:
    """The objectives of every recipe."""
    return {"prediction": prediction.Prediction(), "context_prediction": prediction.ContextPrediction()}


def apply(config: ml_collections.ConfigDict, recipe: str) -> ml_collections.ConfigDict:
    """The config of a baseline run, changed to another recipe in place.

    Raises:
        ValueError: no such recipe; names the nearest and lists all.
    """
    if recipe not in RECIPES:
        near = difflib.get_close_matches(recipe, RECIPES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no recipe {recipe!r}.{hint} Recipes: {', '.join(RECIPES)}.")
    config.recipe = recipe
    config.update(RECIPES[recipe])
    return config
