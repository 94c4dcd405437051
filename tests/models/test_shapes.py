"""The encoder on clips that are not square, and with chosen level ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import models
from jepa_jax.config import Config, EncoderConfig
from jepa_jax.settings import parse
from jepa_jax.training import step
from jepa_jax.training.setup import build_setup, init_state

SMALL = {"size": "16x4x2", "patch": 4}


def encoded(config, clips, params=None):
    encoder = models.build_encoder(config)
    if params is None:
        params = encoder.init(jax.random.key(0), clips)["params"]
    return params, encoder.apply({"params": params}, clips, all_levels=True)


@pytest.fixture(scope="module")
def clips():
    return jax.random.normal(jax.random.key(1), (2, 4, 8, 16, 3))


def test_grid_of_a_wide_clip_is_wide(clips):
    encoder = models.build_encoder(EncoderConfig(**SMALL, levels=1))
    assert encoder.grid(clips) == (2, 2, 4)
    _, tokens_BxNxE = encoded(EncoderConfig(**SMALL, levels=1), clips)
    assert tokens_BxNxE.shape == (2, 16, 16)


def test_level_ends_of_equal_groups_equal_levels(clips):
    params, plain = encoded(EncoderConfig(**SMALL, levels=2), clips)
    _, same = encoded(EncoderConfig(**SMALL, level_ends=(2, 4)), clips, params)
    np.testing.assert_array_equal(plain, same)


@pytest.mark.slow
def test_levels_are_outputs_of_the_chosen_blocks(clips):
    """The reference is an encoder with the same blocks and an output after every block."""
    params, every = encoded(EncoderConfig(**SMALL, levels=4, scan=False), clips)
    chosen = EncoderConfig(**SMALL, level_ends=(1, 4), scan=False)
    shapes, _ = encoded(chosen, clips)
    blocks = [params[f"groups_{level}"] for level in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *blocks[1:])
    moved = {
        **{name: leaf for name, leaf in params.items() if not name.startswith(("groups", "norms"))},
        "groups_0": blocks[0],
        "groups_1": stacked,
        "norms_0": params["norms_0"],
        "norms_1": params["norms_3"],
    }
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, shapes)
    _, actual = encoded(chosen, clips, moved)
    np.testing.assert_allclose(actual, jnp.concatenate([every[..., :16], every[..., 48:]], axis=-1), atol=1e-5)


@pytest.mark.slow
def test_training_step_on_wide_clips():
    settings = {
        "steps": 2,
        "batch_size": 2,
        "dtype": "float32",
        "clip": {"frames": 4, "size": [8, 16]},
        "encoder": {"size": "16x3x2", "patch": 4, "level_ends": [1, 3]},
        "predictor": {"size": "16x1x2"},
        "masks": {"short": {"kind": "random_tokens", "drop": 0.5}},
    }
    setup = build_setup(parse(Config, settings))
    assert setup.grid == (2, 2, 4)
    state = jax.jit(functools.partial(init_state, setup))(0)
    video = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 8, 16, 3), dtype=np.uint8))
    _, metrics = jax.jit(functools.partial(step.train_step, setup))(state, {"video": video})
    assert np.isfinite(float(metrics["loss"]))
