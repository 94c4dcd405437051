"""The study's recipes. Each recipe is a set of changes to the baseline."""

import dataclasses
import difflib
import functools
import importlib.resources
import json
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections

PAPER = "arXiv:2605.17165"
CODE = "its public code (commit 3588723)"
FIGURES = {"diving48": "Diving-48", "imagenet100": "ImageNet-100", "ssv2": "SSv2"}

Changes = dict[str, Any]  # nested settings that replace those of a baseline run


class NoSuchRecipeError(LookupError):  # ml_collections prints a traceback for a ValueError in a config file
    """No recipe has this name."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One entry of `RECIPES`."""

    summary: str
    changes: Changes
    regimes: tuple[str, ...]  # the regimes in which the study ran it; empty if it ran none
    source: str = PAPER
    # Names in the published results, if different. Several names are runs with different seeds.
    published_as: tuple[str, ...] = ()


def _mixed(summary: str, changes: Changes) -> Recipe:
    return Recipe(summary, changes, ("mixed",))


def _ucf101(summary: str, changes: Changes) -> Recipe:
    return Recipe(summary, changes, ("ucf101",))


def _weigh(**coefficients: float) -> dict[str, Any]:
    return {name: {"coefficient": value} for name, value in coefficients.items()}


def _kinematic(coefficient: float, **settings: Any) -> Changes:
    """Disables EMA, because kinematic objectives act on targets, which have no gradient with EMA."""
    return NO_EMA | {"objectives": {"kinematic": {"coefficient": coefficient, **settings}}}


def _masks(**settings: Any) -> Changes:
    return {"masks": {"short": settings, "long": settings}}


NO_EMA = {"target": "online"}
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
    "fwm_relative": Recipe(
        "fwm, its static term relative to the standard deviation of each channel: shrinking features do not lower it",
        {"objectives": FWM | {"factorization_static": {"coefficient": 0.05, "relative": True}}},
        (),
        "ours",
    ),
    "fwm_sigreg": Recipe(
        "fwm and sigreg: the static term cannot make all features equal",
        {"objectives": FWM | _weigh(sigreg=1.0)},
        (),
        "ours",
    ),
    "ld": _mixed("latent dynamics 1", {"objectives": _weigh(latent_dynamics=1.0)}),
    "fwm_ld": _mixed("factorization, latent dynamics 1 of the dynamics channels", {"objectives": FWM | LD_DYNAMICS}),
    "hw_ld": Recipe(
        "hard-region weighting 1, latent dynamics 1 with the same weighting, as the paper describes it",
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


def apply(config: ml_collections.ConfigDict, recipe: str) -> ml_collections.ConfigDict:
    """Applies a recipe to the config of a baseline run, in place, and returns the config.

    The recipe `help` prints the table and exits.

    Raises:
        NoSuchRecipeError: unknown recipe. The message suggests the closest name and lists all recipes.
    """
    if recipe == "help":
        print(f"Recipes:\n{table()}")
        sys.exit(0)
    if recipe not in RECIPES:
        near = difflib.get_close_matches(recipe, RECIPES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise NoSuchRecipeError(f"Unknown recipe {recipe!r}.{hint} Recipes:\n{table()}")
    config.recipe = recipe
    config.update(RECIPES[recipe].changes)
    return config


UNTRAINED_NOTE = """\
Figures of an untrained encoder do not measure the recipe: with EMA off, the study's code evaluates a target encoder
that training never updates. `python -m jepa_jax.evaluate` probes the trained encoder. To probe an untrained one, use
--checkpoint random:WORKDIR."""


def table() -> str:
    """Returns one line per recipe (name, summary, published results) and a note on untrained encoders."""
    width = max(map(len, RECIPES))
    lines = []
    for name, recipe in RECIPES.items():
        figures = "; ".join(_figures(run) for run in published(name) if run["top1"])
        lines.append(f"  {name:{width}}  {recipe.summary} [{figures or 'no figures published'}]")
    return "\n".join([*lines, UNTRAINED_NOTE])


def published(recipe: str) -> list[dict[str, Any]]:
    """Returns the study's runs of a recipe, with regime, seed, settings and top-1 accuracies (percent).

    `evaluated_encoder` is "trained", or "untrained" if EMA was off.
    """
    entry = RECIPES[recipe]
    names = entry.published_as or (recipe,)
    return [run for run in _published_runs() if run["regime"] in entry.regimes and run["recipe"] in names]


@functools.cache
def _published_runs() -> list[dict[str, Any]]:
    text = importlib.resources.files("jepa_jax").joinpath("paper_results.json").read_text()
    return json.loads(text)["runs"]


def _figures(run: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{title} {run['top1'][key]}" for key, title in FIGURES.items() if key in run["top1"])
    encoder = " (of an untrained encoder)" if run["evaluated_encoder"] == "untrained" else ""
    return f"{run['regime']}, seed {run['seed']}: {scores}{encoder}"
