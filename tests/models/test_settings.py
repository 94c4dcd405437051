"""Sizes in numbers, and the settings of predictors and probes that released weights need."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import models
from jepa_jax.config import Config, EncoderConfig, PredictorConfig
from jepa_jax.models import rope, sizes
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training.setup import build_setup

ENCODER = EncoderConfig(size="16x4x2", patch=4, levels=2, scan=False)
GRID = (2, 2, 3)


@pytest.mark.parametrize("name", sizes.ENCODERS)
def test_a_size_in_numbers_is_the_named_one(name):
    size = sizes.ENCODERS[name]
    again = sizes.parse_size(str(size))
    assert (again.width, again.depth, again.heads, again.hidden) == (size.width, size.depth, size.heads, size.hidden)


@pytest.mark.parametrize("text", ["16x2x2x0", "16x2x2x", "16x2", "0x2x2", "16x2x2x8x8"])
def test_invalid_sizes_are_errors(text):
    with pytest.raises(ValueError, match=f"size '{text}'"):
        sizes.parse_size(text)


def predictor(**settings):
    return models.build_predictor(PredictorConfig(size="12x1x2", **settings), ENCODER)


def inputs(width):
    index = jnp.arange(12)[None]
    return jax.random.normal(jax.random.key(0), (1, 7, width)), index[:, :7], index[:, 7:]


def outputs(module, params, width=32, mask_token=0):
    return module.apply({"params": params}, *inputs(width), grid=GRID, mask_token=mask_token)


def params_of(module, width=32):
    return module.init(jax.random.key(1), *inputs(width), grid=GRID)["params"]


def test_a_predictor_of_one_level_uses_only_the_last():
    module = predictor(levels=1)
    params = params_of(module)
    assert "embed_levels" not in params
    assert params["embed"]["kernel"].shape == (16, 12)
    z_BxKxD, context, target = inputs(32)
    all_levels = module.apply({"params": params}, z_BxKxD, context, target, grid=GRID)
    last = dataclasses.replace(module, output=32).apply(
        {"params": params}, z_BxKxD[..., 16:], context, target, grid=GRID
    )
    assert all_levels[0].shape == (1, 5, 32)
    jax.tree.map(np.testing.assert_array_equal, all_levels, last)


def test_outputs_have_the_chosen_width_and_there_are_as_many_mask_tokens():
    module = predictor(output=10, mask_tokens=5)
    params = params_of(module)
    assert params["mask_tokens"].shape == (5, 1, 1, 12)
    params["mask_tokens"] = params["mask_tokens"].at[4].set(1.0)
    (first, context), (fifth, _) = outputs(module, params), outputs(module, params, mask_token=4)
    assert first.shape == (1, 5, 10)
    assert context.shape == (1, 7, 10)
    assert abs(first - fifth).max() > 1e-6


def test_scaling_of_the_predictors_positions():
    params = params_of(predictor())
    default, _ = outputs(predictor(), params)
    for setting, same in (("on", True), ("off", False)):
        scaled, _ = outputs(predictor(rotary_scale=setting), params)
        assert np.array_equal(default, scaled) is same


def test_unscaled_interleaved_angles_are_those_of_the_positions():
    turns = rope.turns(jnp.arange(12)[None], GRID, 6, 4, "interleaved", scaled=False)
    np.testing.assert_allclose(turns.cos_BxSx1xG[0, :, 0, 4], np.cos(np.tile([0.0, 1.0, 2.0], 4)), rtol=1e-6)


def test_a_predictor_cannot_take_more_levels_than_there_are():
    with pytest.raises(ValueError, match="levels is 3; expected at most the 2 of the encoder"):
        predictor(levels=3)


def test_training_needs_predictions_of_all_levels():
    settings = {"encoder": {"size": "16x4x2"}, "predictor": {"size": "12x1x2", "output": 10}}
    with pytest.raises(ConfigError, match=r"config\.predictor: output is 10; training needs 0 or the 64 channels"):
        build_setup(parse(Config, settings))


@pytest.mark.parametrize("setting", ["levels", "output", "mask_tokens"])
def test_settings_have_a_range(setting):
    with pytest.raises(ValueError, match=f"{setting} is -1"):
        PredictorConfig(**{setting: -1})
