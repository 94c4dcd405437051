"""Recipes sample the same masks as in earlier versions, so that old runs resume with their masks."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from jepa_jax import masks, recipes
from jepa_jax.config import Config, defaults
from jepa_jax.settings import parse, to_dict

GRID = (4, 6, 6)
SAME_MASKS = {  # the stored samples of a recipe; the others use "baseline"
    "motion_guided": "motion_guided",
    "amg": "amg",
    "combo": "amg",
    "future_predictive": "future_predictive",
    "motion_future": "motion_future",
}
OLD_MASKS = {  # from the config.json of a motion_future run, written when masks had no kinds (keys in order)
    "long": {
        "blocks": 1,
        "spatial_scale": 0.7,
        "temporal_scale": 1.0,
        "aspect": [0.75, 1.5],
        "temporal_keep": 0.5,
        "motion_strength": 2.0,
        "motion_random_rate": 0.1,
        "budget": "mean",
    },
    "short": {
        "blocks": 4,
        "spatial_scale": 0.15,
        "temporal_scale": 1.0,
        "aspect": [0.75, 1.5],
        "temporal_keep": 0.5,
        "motion_strength": 2.0,
        "motion_random_rate": 0.1,
        "budget": "mean",
    },
}


@pytest.fixture(scope="module")
def stored():
    """Context and target positions of three clips for each mask of each recipe with its own masks."""
    with np.load(pathlib.Path(__file__).with_name("draws.npz")) as arrays:
        return dict(arrays)


@functools.cache
def drawn(*mask_of_name):
    clips = np.random.default_rng(0).random((3, 8, 24, 24, 3), np.float32)
    plans = tuple(masks.plan(mask, GRID) for _, mask in mask_of_name)
    return masks.draw_all(plans, jax.random.key(7), jax.numpy.asarray(clips))


def assert_drawn_as_stored(config, recipe, stored):
    for name, (context, target) in zip(config.masks, drawn(*config.masks.items()), strict=True):
        np.testing.assert_array_equal(context, stored[f"{recipe}/{name}/context"])
        np.testing.assert_array_equal(target, stored[f"{recipe}/{name}/target"])


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_recipes_sample_the_stored_masks(recipe, stored):
    config = parse(Config, recipes.apply(defaults(Config), recipe))
    assert_drawn_as_stored(config, SAME_MASKS.get(recipe, "baseline"), stored)


def test_settings_without_a_kind_are_block_masks(stored):
    config = parse(Config, {"masks": OLD_MASKS})
    assert_drawn_as_stored(config, "motion_future", stored)
    written = to_dict(config)["masks"]
    assert {name: {**mask, "aspect": list(mask["aspect"])} for name, mask in written.items()} == OLD_MASKS
