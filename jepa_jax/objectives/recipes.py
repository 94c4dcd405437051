"""The table of the study: which objectives there are, and what each recipe changes in the baseline."""

import dataclasses
import difflib
import functools
import importlib.resources
import json
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections

from jepa_jax.objectives import (
    action,
    base,
    delta,
    factorization,
    hamiltonian,
    hard_region,
    kinematic,
    latent_dynamics,
    prediction,
    sigreg,
    spectral,
    temporal_contrastive,
    velocity_gate,
)

OBJECTIVES: dict[str, type] = {
    "prediction": prediction.Prediction,
    "context_prediction": prediction.ContextPrediction,
    "hard_region": hard_region.HardRegion,
    "factorization_static": factorization.Static,
    "factorization_orthogonality": factorization.Orthogonality,
    "latent_dynamics": latent_dynamics.LatentDynamics,
    "delta": delta.Delta,
    "spectral": spectral.Spectral,
    "temporal_contrastive": temporal_contrastive.TemporalContrastive,
    "action": action.Action,
    "kinematic": kinematic.Kinematic,
    "velocity_gate": velocity_gate.VelocityGate,
    "hamiltonian": hamiltonian.Hamiltonian,
    "sigreg": sigreg.SIGReg,
}

PAPER = "arXiv:2605.17165"
CODE = "its public code (commit 3588723)"
FIGURES = {"diving48": "Diving-48", "imagenet100": "ImageNet-100", "ssv2": "SSv2"}

Changes = dict[str, Any]  # nested, of the settings of a baseline run


class NoSuchRecipeError(LookupError):  # config_flags buries a ValueError of a config file in a traceback
    """A name that is not in the table."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One entry of the table."""

    summary: str
    changes: Changes
    regimes: tuple[str, ...]  # the study's regimes it was run in; none for those the study lacks
    source: str = PAPER
    # Names in the published results; here the figures are found. Several: the same recipe at other seeds.
    published_as: tuple[str, ...] = ()


def _mixed(summary: str, changes: Changes) -> Recipe:
    return Recipe(summary, changes, ("mixed",))


def _ucf101(summary: str, changes: Changes) -> Recipe:
    return Recipe(summary, changes, ("ucf101",))


def _weigh(**coefficients: float) -> dict[str, Any]:
    return {name: {"coefficient": value} for name, value in coefficients.items()}


def _kinematic(coefficient: float, **settings: Any) -> Changes:
    """Kinematic objectives act on targets, which have a gradient only without EMA."""
    return NO_EMA | {"objectives": {"kinematic": {"coefficient": coefficient, **settings}}}


def _masks(**settings: Any) -> Changes:
    return {"masks": {"short": settings, "long": settings}}


NO_EMA = {"ema": {"enabled": False}}
FOLLOW_MOTION = {"motion_strength": 2.0, "motion_random_rate": 0.1}
FOLLOW_MOTION_ONLY = {"motion_strength": 5.0, "motion_random_rate": 0.0}
PREDICT_FUTURE = {"short": {"blocks": 4, "temporal_keep": 0.5}, "long": {"blocks": 1, "temporal_keep": 0.5}}
FWM = _weigh(factorization_static=0.05, factorization_orthogonality=0.01)
LD_HARD = {"latent_dynamics": {"coefficient": 1.0, "weighting": "hard"}}
LD_DYNAMICS = {"latent_dynamics": {"coefficient": 1.0, "channels": "dynamics"}}
LD_HARD_DYNAMICS = {"latent_dynamics": {"coefficient": 1.0, "channels": "dynamics", "weighting": "hard"}}
LD_LOGGED = {"latent_dynamics": {"coefficient": 1.0, "weighting": "hard_without_gradient"}}
LD_LOGGED_DYNAMICS = {
    "latent_dynamics": {"coefficient": 1.0, "channels": "dynamics", "weighting": "hard_without_gradient"}
}

RECIPES: dict[str, Recipe] = {
    "baseline": Recipe(
        "prediction and context losses alone", {}, ("mixed", "ucf101"), published_as=("baseline", "baseline_seed42")
    ),
    "baseline_no_ema": Recipe(
        "baseline, targets from the online encoder: the control that the EMA-off recipes lack", NO_EMA, (), "ours"
    ),
    "motion_guided": Recipe(
        "masks follow motion (strength 2, a tenth at random)", _masks(**FOLLOW_MOTION), ("mixed", "ucf101")
    ),
    "hw": _mixed("hard-region weighting 0.3", {"objectives": _weigh(hard_region=0.3)}),
    "delta": _mixed("delta 0.5", {"objectives": _weigh(delta=0.5)}),
    "fwm": _mixed("factorization: static 0.05, orthogonality 0.01", {"objectives": FWM}),
    "ld": _mixed("latent dynamics 1", {"objectives": _weigh(latent_dynamics=1.0)}),
    "fwm_ld": _mixed("factorization, latent dynamics 1 of the dynamics channels", {"objectives": FWM | LD_DYNAMICS}),
    "hw_ld": Recipe(
        "hard-region weighting 1, latent dynamics 1 weighted likewise, as the paper describes it",
        {"objectives": _weigh(hard_region=1.0) | LD_HARD},
        (),
        f"{PAPER} (not so in {CODE}: hw_ld_paper_code)",
    ),
    "hw_ld_paper_code": Recipe(
        "hw_ld as the study ran it: latent dynamics has no gradient",
        {"objectives": _weigh(hard_region=1.0) | LD_LOGGED},
        ("mixed",),
        CODE,
        ("hw_ld",),
    ),
    "fwm_hw_ld": Recipe(
        "factorization, hard-region weighting 1, latent dynamics 1, as the paper describes it",
        {"objectives": FWM | _weigh(hard_region=1.0) | LD_HARD_DYNAMICS},
        (),
        f"{PAPER} (not so in {CODE}: fwm_hw_ld_paper_code)",
    ),
    "fwm_hw_ld_paper_code": Recipe(
        "fwm_hw_ld as the study ran it: latent dynamics has no gradient",
        {"objectives": FWM | _weigh(hard_region=1.0) | LD_LOGGED_DYNAMICS},
        ("mixed",),
        CODE,
        ("fwm_hw_ld",),
    ),
    "amg": _mixed("masks follow motion aggressively (strength 5, none at random)", _masks(**FOLLOW_MOTION_ONLY)),
    "combo": _mixed(
        "delta 0.5, hard-region weighting 0.3, masks of amg",
        _masks(**FOLLOW_MOTION_ONLY) | {"objectives": _weigh(delta=0.5, hard_region=0.3)},
    ),
    "spectral": _mixed("spectral 1", {"objectives": _weigh(spectral=1.0)}),
    "ltc": _mixed("latent temporal contrast 0.5", {"objectives": _weigh(temporal_contrastive=0.5)}),
    "ac": _mixed("action-conditioned 1", {"objectives": _weigh(action=1.0)}),
    "ac_hw": _mixed(
        "action-conditioned 1, hard-region weighting 0.3", {"objectives": _weigh(action=1.0, hard_region=0.3)}
    ),
    "fac": _mixed(
        "factorization, action-conditioned 1 of the dynamics channels",
        {"objectives": FWM | {"action": {"coefficient": 1.0, "channels": "dynamics"}}},
    ),
    "kinematic": _ucf101("no EMA, targets move little: 1", _kinematic(1.0)),
    "kinematic_0_1": _ucf101("no EMA, targets move little: 0.1", _kinematic(0.1)),
    "kinematic_huber": _ucf101("no EMA, targets move little: 0.1, Huber's penalty", _kinematic(0.1, kind="huber")),
    "kinematic_accel": _ucf101("no EMA, targets move evenly: 0.1", _kinematic(0.1, kind="acceleration")),
    "kinematic_split": _ucf101(
        "kinematic_accel of the first half of the channels", _kinematic(0.1, kind="acceleration", share=0.5)
    ),
    "kinematic_anneal": _ucf101(
        "kinematic_accel, its coefficient falling to 0 as a cosine",
        _kinematic(0.1, kind="acceleration", schedule={"shape": "cosine"}),
    ),
    "sigreg": _ucf101("SIGReg 1", {"objectives": _weigh(sigreg=1.0)}),
    "sigreg_no_ema": _ucf101("SIGReg 1, no EMA", NO_EMA | {"objectives": _weigh(sigreg=1.0)}),
    "hamiltonian": _ucf101("Hamiltonian 1", {"objectives": _weigh(hamiltonian=1.0)}),
    "velgate": _ucf101("velocity gate 1, at the median", {"objectives": _weigh(velocity_gate=1.0)}),
    "future_predictive": _ucf101("context in the first half of time alone", {"masks": PREDICT_FUTURE}),
    "motion_future": _ucf101(
        "future_predictive, masks follow motion",
        {"masks": {name: mask | FOLLOW_MOTION for name, mask in PREDICT_FUTURE.items()}},
    ),
}


def baseline() -> dict[str, base.Objective]:
    """The objectives of every recipe."""
    return {"prediction": prediction.Prediction(), "context_prediction": prediction.ContextPrediction()}


def apply(config: ml_collections.ConfigDict, recipe: str) -> ml_collections.ConfigDict:
    """The config of a baseline run, changed to another recipe in place.

    `help` prints the table and ends the program.

    Raises:
        NoSuchRecipeError: names the nearest and lists all.
    """
    if recipe == "help":
        print(f"Recipes:\n{table()}")
        sys.exit(0)
    if recipe not in RECIPES:
        near = difflib.get_close_matches(recipe, RECIPES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise NoSuchRecipeError(f"There is no recipe {recipe!r}.{hint} Recipes:\n{table()}")
    config.recipe = recipe
    config.update(RECIPES[recipe].changes)
    return config


def table() -> str:
    """One line a recipe: name, what it is, the study's figures."""
    width = max(map(len, RECIPES))
    lines = []
    for name, recipe in RECIPES.items():
        figures = "; ".join(_figures(run) for run in published(name) if run["top1"])
        lines.append(f"  {name:{width}}  {recipe.summary} [{figures or 'no figures published'}]")
    return "\n".join(lines)


def published(recipe: str) -> list[dict[str, Any]]:
    """The study's runs of a recipe: regime, seed, settings and top-1 accuracies (percent) of each."""
    entry = RECIPES[recipe]
    names = entry.published_as or (recipe,)
    return [run for run in _published_runs() if run["regime"] in entry.regimes and run["recipe"] in names]


@functools.cache
def _published_runs() -> list[dict[str, Any]]:
    text = importlib.resources.files("jepa_jax.objectives").joinpath("paper_results.json").read_text()
    return json.loads(text)["runs"]


def _figures(run: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{title} {run['top1'][key]}" for key, title in FIGURES.items() if key in run["top1"])
    return f"{run['regime']}, seed {run['seed']}: {scores}"
