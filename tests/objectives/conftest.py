"""Fixtures for tiny random latents, and for the loss and gradients of an objective on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import objectives
from jepa_jax.objectives import base
from jepa_jax.settings import parse

D, LEVELS = 8, 2


def _ragged(rng, batch, tokens, visible):
    order = rng.permuted(np.tile(np.arange(tokens), (batch, 1)), axis=1)
    return np.sort(order[:, :visible]), np.sort(order[:, visible:])


def _latents(seed=0, grid=(4, 2, 3), batch=2, visible=None, context=None, features=D):
    """Latents of two views. `context` [B, K] has the context positions of both; by default they are random."""
    rng = np.random.default_rng(seed)
    tokens = int(np.prod(grid))

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    views = []
    for _ in range(2):
        if context is None:
            index, target = _ragged(rng, batch, tokens, visible or max(tokens * 2 // 3, 1))
        else:
            index = np.asarray(context)
            target = np.stack([np.setdiff1d(np.arange(tokens), row) for row in index])
        shapes = [(*i.shape, features) for i in (index, target, index)]
        views.append(
            base.View(jnp.asarray(index, jnp.int32), jnp.asarray(target, jnp.int32), *(normal(*s) for s in shapes))
        )
    return base.Latents(tuple(views), normal(batch, tokens, features), normal(batch, tokens, 3), grid, LEVELS)


@functools.cache
def _evaluator(objective, progress):
    now = base.StepContext(jnp.asarray(round(progress * 100)), jax.random.key(1), 100)

    @jax.jit
    def evaluate(features, head, rest):
        def loss_of(features, head):
            views = tuple(base.View(*r, *f) for r, f in zip(rest["index"], features["views"], strict=True))
            latents = base.Latents(views, features["target"], rest["colour"], rest["grid"].value, LEVELS)
            return objective(head, latents, now)[0]

        return jax.value_and_grad(loss_of, argnums=(0, 1))(features, head)

    return evaluate


@jax.tree_util.register_static
class _Static(tuple):
    @property
    def value(self):
        return tuple(self)


def _evaluate(objective, latents, head=None, progress=0.0):
    """Loss, and gradients on features and head."""
    head = objective.init(jax.random.key(0), base.Dims(D, LEVELS)) if head is None else head
    views = latents.views
    features = {
        "views": [(v.context_BxKxD, v.predicted_target_BxMxD, v.predicted_context_BxKxD) for v in views],
        "target": latents.target_BxNxD,
    }
    rest = {
        "index": [(v.context_index_BxK, v.target_index_BxM) for v in views],
        "colour": latents.colour_BxNxC,
        "grid": _Static(latents.grid),
    }
    return _evaluator(objective, progress)(features, head, rest)


@pytest.fixture(scope="session")
def make_latents():
    return _latents


@pytest.fixture(scope="session")
def evaluate():
    """evaluate(objective, latents, head=None, progress=0.0): loss and (gradients on features, on head)."""
    return _evaluate


def _every_objective():
    variants = {name: kind() for name, kind in objectives.CLASSES.items()}
    variants["context_prediction"] = objectives.CLASSES["context_prediction"](schedule=base.Schedule())
    for name, kind, settings in (
        ("factorization_static_relative", "factorization_static", {"relative": True}),
        ("latent_dynamics_hard", "latent_dynamics", {"weighting": "hard", "channels": "dynamics"}),
        ("latent_dynamics_code", "latent_dynamics", {"weighting": "hard_without_gradient"}),
        ("action_dynamics", "action", {"channels": "dynamics", "split": "per_level"}),
        ("kinematic_huber", "kinematic", {"kind": "huber"}),
        ("kinematic_acceleration", "kinematic", {"kind": "acceleration", "share": 0.5}),
    ):
        variants[name] = parse(objectives.CLASSES[kind], settings)
    return variants


EVERY = _every_objective()


def pytest_generate_tests(metafunc):
    if "objective" in metafunc.fixturenames:
        metafunc.parametrize("objective", EVERY.values(), ids=EVERY.keys())
