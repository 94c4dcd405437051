"""Kinds of masks: random tokens, and external classes."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import masks
from jepa_jax.config import Config, defaults
from jepa_jax.masks.block import BlockMask
from jepa_jax.masks.random_tokens import RandomTokens
from jepa_jax.settings import ConfigError, parse, to_dict
from jepa_jax.training import step
from jepa_jax.training.setup import build_setup, init_state

GRID = (4, 5, 6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkerboard(masks.Mask):
    """Every other token is context, starting from a random one of the first two."""

    offset: int = 0

    def plan(self, grid):
        tokens = grid[0] * grid[1] * grid[2]
        return masks.MaskPlan(self, grid, tokens // 2, tokens // 2)

    def draw(self, plan, key, batch, motion_BxTxHxW=None):
        first = (jax.random.bernoulli(key, shape=(batch, 1)) + self.offset) % 2
        even = 2 * jnp.arange(plan.context)[None]
        return even + first, even + 1 - first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overfull(Checkerboard):
    """Plans more tokens than a clip has."""

    def plan(self, grid):
        return dataclasses.replace(super().plan(grid), target=grid[0] * grid[1] * grid[2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unplanned(Checkerboard):
    """Draws fewer tokens than it plans."""

    def draw(self, plan, key, batch, motion_BxTxHxW=None):
        context, target = super().draw(plan, key, batch)
        return context[:, 1:], target


@dataclasses.dataclass(frozen=True)
class NoMask:
    blocks: int = 1


@pytest.mark.parametrize("tubes", [False, True])
@pytest.mark.parametrize("drop", [0.5, 0.75, 0.95])
def test_random_tokens_are_dropped_uniformly(drop, tubes):
    plan = masks.plan(RandomTokens(drop=drop, tubes=tubes), GRID)
    draw = jax.jit(functools.partial(masks.draw, plan, batch=2000))
    context, target = (np.asarray(x) for x in draw(jax.random.key(0)))
    tokens = int(np.prod(GRID))
    assert plan.target / tokens == pytest.approx(drop, abs=0.5 / (30 if tubes else tokens) + 1e-9)
    np.testing.assert_array_equal(np.sort(np.concatenate([context, target], axis=1)), [np.arange(tokens)] * 2000)
    assert (np.diff(context) > 0).all()
    assert (np.diff(target) > 0).all()
    # Within five standard errors of the share in 2,000 clips.
    share = plan.context / tokens
    frequency = np.bincount(context.ravel(), minlength=tokens) / 2000
    assert np.abs(frequency - share).max() < 5 * np.sqrt(share * (1 - share) / 2000)
    in_frame = np.sort(context.reshape(2000, -1) % 30) if tubes else None
    if in_frame is not None:
        assert (in_frame.reshape(2000, -1, GRID[0]) == in_frame.reshape(2000, -1, GRID[0])[..., :1]).all()
    other, _ = draw(jax.random.key(1))
    assert (context != np.asarray(other)).any()
    np.testing.assert_array_equal(context, draw(jax.random.key(0))[0])


@pytest.mark.parametrize("drop", [0.0, 1.0, -0.5, float("nan")])
def test_drop_shares_out_of_range_raise(drop):
    with pytest.raises(ConfigError, match=r"config\.masks\.short: drop is .*greater than 0 and less than 1"):
        parse(Config, {"masks": {"short": {"kind": "random_tokens", "drop": drop}}})


@pytest.mark.parametrize(
    ("mask", "grid", "message"),
    [
        (RandomTokens(), (1, 1, 1), "at least two tokens, and the grid of tokens is 1×1×1"),
        (RandomTokens(tubes=True), (8, 1, 1), "at least two positions in a frame, and the grid of tokens is 8×1×1"),
        (Overfull(), GRID, "Overfull plans 60 context and 120 target tokens; .* together at most the clip's 120"),
        (NoMask(), GRID, r"NoMask is not a mask; derive it from jepa_jax\.masks\.Mask"),
    ],
)
def test_masks_that_do_not_fit_the_grid_raise(mask, grid, message):
    with pytest.raises(ValueError, match=message):
        masks.plan(mask, grid)


def test_draw_that_does_not_match_its_plan_raises():
    with pytest.raises(ValueError, match=r"Unplanned draws context \(2, 59\) and target \(2, 60\); its plan says"):
        masks.draw(masks.plan(Unplanned(), GRID), jax.random.key(0), 2)


def test_mask_kind_is_chosen_by_name():
    config = defaults(Config)
    config.masks = {"dropped": {"kind": "random_tokens", "drop": 0.9}, "long": {"kind": "block", "blocks": 2}}
    parsed = parse(Config, config)
    assert parsed.masks == {"dropped": RandomTokens(drop=0.9), "long": BlockMask(blocks=2)}
    assert parse(Config, json.loads(json.dumps(to_dict(parsed)))) == parsed
    assert "kind" not in to_dict(parsed)["masks"]["long"]  # as in the config.json of older versions


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"kind": "random_token"}, r"masks\.short\.kind: there is no 'random_token'\. Did you mean 'random_tokens'"),
        ({"kind": "no_such_package:Mask"}, r"masks\.short\.kind is 'no_such_package:Mask', which cannot be imported"),
        ({"kind": "random_tokens", "blocks": 3}, r"masks\.short\.blocks is not a setting\..*Known here: drop, tubes"),
    ],
)
def test_unknown_kinds_and_settings_raise(mask, message):
    with pytest.raises(ConfigError, match=message):
        parse(Config, {"masks": {"short": mask}})


def test_external_mask_trains():
    settings = {
        "steps": 2,
        "batch_size": 4,
        "dtype": "float32",
        "clip": {"frames": 4, "size": 16},
        "encoder": {"size": "16x1x2", "patch": 4, "levels": 1},
        "predictor": {"size": "16x1x2"},
        "masks": {"board": {"kind": f"{__name__}:Checkerboard", "offset": 1}, "dropped": {"kind": "random_tokens"}},
        "objectives": {"prediction": {}},
    }
    config = parse(Config, settings)
    assert parse(Config, json.loads(json.dumps(to_dict(config)))) == config
    setup = build_setup(config)
    assert [(plan.context, plan.target) for plan in setup.masks] == [(16, 16), (8, 24)]
    state = jax.jit(functools.partial(init_state, setup))(0)
    video = np.random.default_rng(0).integers(0, 256, (4, 4, 16, 16, 3), dtype=np.uint8)
    _, indices, _ = step.prepare(setup, state, {"video": jnp.asarray(video)})
    assert {int(first) for first in indices[0][0][:, 0]} <= {0, 1}
    np.testing.assert_array_equal(np.diff(indices[0][0]), 2)
    _, metrics = jax.jit(functools.partial(step.train_step, setup))(state, {"video": jnp.asarray(video)})
    assert np.isfinite(float(metrics["loss"]))


def test_class_that_is_not_a_mask_raises():
    config = parse(Config, {"masks": {"short": {"kind": f"{__name__}:NoMask"}}})
    with pytest.raises(ConfigError, match=r"config\.masks\.short: NoMask is not a mask"):
        build_setup(config)
