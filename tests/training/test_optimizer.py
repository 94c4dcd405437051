"""Optimizers by name: their updates, clipping, accumulation, and the state tree stored in checkpoints."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run

from jepa_jax.checkpoints import tree_paths
from jepa_jax.config import Config, OptimConfig
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import optimizer, step
from jepa_jax.training.setup import build_setup, init_state

# Without compiler optimizations, a tiny step compiles in half the time.
fast_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})
PARAMS = {"layer": {"kernel": jnp.full((3, 4), 2.0), "bias": jnp.full(4, 2.0)}, "token": jnp.full((2, 4), 2.0)}


def build(**changes):
    return optimizer.build(OptimConfig(warmup_steps=0, peak_lr=1e-3, final_lr=1e-3, **changes), 10)


def first_update(gradient, **changes):
    built = build(**changes)
    return built.update(gradient, built.init(PARAMS), PARAMS)[0]


def test_adamw_matches_optax():
    gradient = jax.tree.map(lambda p: p * jnp.linspace(-1, 1, p.size).reshape(p.shape), PARAMS)
    theirs = optax.adamw(1e-3, weight_decay=0.04, mask=optimizer.decayed)
    expected, _ = theirs.update(gradient, theirs.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(first_update(gradient), expected, rtol=1e-6)


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_every_optimizer_decreases_a_quadratic(name):
    built = build(name=name)
    params, state = PARAMS, built.init(PARAMS)
    for _ in range(5):
        updates, state = built.update(params, state, params)  # the gradient of ½|p|²
        params = optax.apply_updates(params, updates)
    assert float(optax.tree.norm(params)) < float(optax.tree.norm(PARAMS))


def test_muon_orthogonalizes_only_kernels():
    axes = optimizer.matrices({"a": {"kernel": jnp.zeros((5, 3, 4)), "bias": jnp.zeros(4)}})
    assert axes == {"a": {"kernel": optax.contrib.MuonDimensionNumbers(1, 2), "bias": None}}


def test_unknown_optimizer_raises_with_the_known_names():
    with pytest.raises(ConfigError, match=r"config\.optim: name is 'adamv', .* Did you mean 'adamw'\? .*lion"):
        build_setup(parse(Config, tiny_run.SETTINGS | {"optim": {"name": "adamv"}}))


def test_gradients_are_clipped_to_the_norm():
    gradient = jax.tree.map(lambda p: 100 * jnp.ones_like(p), PARAMS)
    without_decay = {"name": "sgd", "weight_decay": 0.0, "final_weight_decay": 0.0}
    clipped = first_update(gradient, grad_clip_norm=0.5, **without_decay)
    assert float(optax.tree.norm(clipped)) == pytest.approx(0.5e-3, rel=1e-5)
    small = jax.tree.map(lambda p: 1e-3 * jnp.ones_like(p), PARAMS)
    chex.assert_trees_all_close(
        first_update(small, grad_clip_norm=0.5, **without_decay), first_update(small, **without_decay)
    )


def test_state_names_match_those_of_older_checkpoints():
    """Also with clipping, which can be enabled when a run resumes."""
    expected = {"0/count", "1/inner_state/count", "2/count"} | {
        f"0/{moment}/{name}" for moment in ("mu", "nu") for name in ("layer/kernel", "layer/bias", "token")
    }
    for norm in (0.0, 1.0):
        assert set(tree_paths.by_name(build(grad_clip_norm=norm).init(PARAMS))) == expected


@pytest.mark.slow
def test_gradient_accumulation_matches_the_full_batch():
    batch = {"item": jnp.arange(8, dtype=jnp.int32), "seed": jnp.zeros(8, jnp.int32)}

    def run(parts):
        optim = {"name": "sgd", "warmup_steps": 0, "accumulate": parts}
        setup = build_setup(parse(Config, tiny_run.SETTINGS | {"optim": optim}))
        state = fast_jit(functools.partial(init_state, setup))(0)
        return fast_jit(functools.partial(step.train_step, setup))(state, batch)

    (whole, metrics), (parts, accumulated) = run(1), run(4)
    chex.assert_trees_all_close(parts.params, whole.params, atol=1e-5)
    np.testing.assert_allclose(accumulated["gradient_norm"], metrics["gradient_norm"], rtol=1e-5)
    np.testing.assert_allclose(accumulated["loss"], metrics["loss"], rtol=1e-5)
    assert accumulated["features"]["target"].shape == metrics["features"]["target"].shape
