"""Recipes match the published runs of the study, and new objectives can be added in one place."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from jepa_jax import objectives, recipes
from jepa_jax.config import Config, defaults
from jepa_jax.objectives import base
from jepa_jax.parity import comparison, objective_cases
from jepa_jax.settings import parse

META = comparison.Folder(pathlib.Path(__file__).parent.parent / "golden").meta
PUBLISHED = [(name, run) for name in recipes.RECIPES for run in recipes.published(name)]
MASKS = {
    "motion_guided_strength": "motion_strength",
    "motion_guided_random_rate": "motion_random_rate",
    "max_temporal_keep": "temporal_keep",
}


def config_of(recipe):
    return parse(Config, recipes.apply(defaults(Config), recipe))


@pytest.mark.parametrize(("recipe", "run"), PUBLISHED, ids=[f"{r['regime']}-{n}-{r['seed']}" for n, r in PUBLISHED])
def test_settings_match_the_published_run(recipe, run):
    config = config_of(recipe)
    auxiliary = {name: o for name, o in config.objectives.items() if name not in Config().objectives}
    assert auxiliary == objective_cases.objectives_of(run["settings"] | {"as_described": False}, META["defaults"])
    assert config.ema.enabled != run["settings"]["disable_ema"]
    for theirs, ours in MASKS.items():
        default = 1.0 if theirs == "max_temporal_keep" else 0.0
        if theirs != "motion_guided_random_rate" or "motion_guided_strength" in run["mask"]:
            assert {getattr(mask, ours) for mask in config.masks.values()} == {run["mask"].get(theirs, default)}
    assert [config.masks[name].blocks for name in ("short", "long")] == run["mask"].get("num_blocks", [8, 2])


def test_every_published_run_has_a_recipe():
    assert len(recipes.RECIPES) == 33
    published = json.loads(pathlib.Path(recipes.__file__).with_name("paper_results.json").read_text())["runs"]
    without = [run["recipe"] for run in published if not any(run == other for _, other in PUBLISHED)]
    assert without == ["baseline_seed1337"]  # it has no results
    ours = {name for name in recipes.RECIPES if not recipes.published(name)}
    assert ours == {"baseline_no_ema", "fwm_relative", "fwm_sigreg", "hw_ld", "fwm_hw_ld"}


def test_results_of_untrained_encoders_are_marked():
    """The study evaluates the target encoder, which is only updated if EMA is enabled."""
    marked = {name for name, run in PUBLISHED if run["evaluated_encoder"] == "untrained"}
    assert marked == {name for name, _ in PUBLISHED if not config_of(name).ema.enabled}
    assert {"kinematic", "kinematic_split", "sigreg_no_ema"} < marked
    lines = {line.split()[0]: line for line in recipes.table().splitlines() if line.startswith("  ")}
    assert lines.keys() == recipes.RECIPES.keys()
    assert {name for name, line in lines.items() if "(of an untrained encoder)" in line} == marked


@pytest.mark.parametrize("recipe", ["hw_ld", "fwm_hw_ld"])
def test_recipe_as_described_differs_from_the_code_in_one_setting(recipe):
    described, code = config_of(recipe).objectives, config_of(f"{recipe}_paper_code").objectives
    weighting = {"weighting": "hard_without_gradient"}
    changed = dataclasses.replace(described["latent_dynamics"], **weighting)
    assert {**described, "latent_dynamics": changed} == code
    assert described["latent_dynamics"].weighting == "hard"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norm(base.Objective):
    """A new objective: the mean square of visible tokens."""

    def view_value(self, head, view, latents):
        return jnp.square(view.context_BxKxD).mean()


def test_new_objective_needs_only_a_class_and_a_recipe(monkeypatch, make_latents, evaluate):
    monkeypatch.setitem(objectives.CLASSES, "norm", Norm)
    monkeypatch.setitem(
        recipes.RECIPES, "norm", recipes.Recipe("small", {"objectives": {"norm": {"coefficient": 0.5}}}, ())
    )
    assert "norm" not in config_of("baseline").objectives
    added = config_of("norm").objectives
    assert added == {**Config().objectives, "norm": Norm(coefficient=0.5)}
    latents = make_latents()
    heads = {name: o.init(jax.random.key(0), base.Dims(8, 2)) for name, o in added.items()}
    now = base.StepContext(jnp.zeros((), jnp.int32), jax.random.key(0), 1)
    total, metrics = base.total_loss(added, heads, latents, now)
    assert float(total) == pytest.approx(sum(float(metrics[f"loss/{name}"]) for name in added), rel=1e-5)
    loss, (of_features, _) = evaluate(added["norm"], latents)
    assert float(metrics["loss/norm"]) == pytest.approx(float(loss), rel=1e-5)
    assert of_features["views"][0][0].any()
