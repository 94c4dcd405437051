"""Prediction and context losses agree with the study's, losses to 2e-6 and gradients to 1e-5."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.objectives import base, prediction

LOSS, GRADIENT = 2e-6, 1e-5
NOW = base.Moment(step=jnp.zeros((), jnp.int32), key=jax.random.key(0), steps=1)


@pytest.fixture(scope="module")
def data(golden):
    return golden("objectives")


@pytest.fixture(scope="module")
def latents(data, golden_meta):
    views = tuple(
        base.View(
            context_index_BxK=jnp.asarray(data[f"in/mask_context{i}"], jnp.int32),
            target_index_BxM=jnp.asarray(data[f"in/mask_target{i}"], jnp.int32),
            context_BxKxD=jnp.asarray(data[f"in/z_enc{i}"]),
            predicted_target_BxMxD=jnp.asarray(data[f"in/z_pred{i}"]),
            predicted_context_BxKxD=jnp.asarray(data[f"in/z_context{i}"]),
        )
        for i in (0, 1)
    )
    return base.Latents(views, jnp.asarray(data["in/h"]), jnp.zeros((2, 64, 3)), tuple(golden_meta["grid"]), 4)


@pytest.mark.parametrize(
    ("case", "objective", "name", "field"),
    [
        ("prediction", prediction.Prediction(), "z_pred", "predicted_target_BxMxD"),
        ("prediction_exp2", prediction.Prediction(exponent=2.0), "z_pred", "predicted_target_BxMxD"),
        (
            "context_distance_weighted",
            prediction.ContextPrediction(coefficient=1.0, start=0.0, end=0.0),
            "z_context",
            "predicted_context_BxKxD",
        ),
    ],
)
def test_loss_and_gradient(data, latents, case, objective, name, field):
    def loss_of(latents):
        return objective({}, latents, NOW)[0]

    loss, gradient = jax.jit(jax.value_and_grad(loss_of, allow_int=True))(latents)
    assert float(loss) == pytest.approx(float(data[f"{case}/loss"]), abs=LOSS)
    for i, view in enumerate(gradient.views):
        for f in dataclasses.fields(view):
            if f.name.endswith("index_BxK") or f.name.endswith("index_BxM"):
                continue
            expected = data[f"{case}/grad/{name}{i}"] if f.name == field else 0.0
            np.testing.assert_allclose(getattr(view, f.name), expected, atol=GRADIENT, rtol=0, err_msg=f.name)


@pytest.mark.parametrize("i", [0, 1])
def test_distances_of_context_tokens(data, golden_meta, i):
    distance_BxN = prediction.distance_to_target(jnp.asarray(data[f"in/mask_target{i}"]), tuple(golden_meta["grid"]))
    got = jnp.sqrt(jnp.take_along_axis(distance_BxN, jnp.asarray(data[f"in/mask_context{i}"]), axis=1))
    np.testing.assert_allclose(got, data[f"context_distance_weighted/sqrt_distance{i}"], atol=1e-6)


def test_distance_is_that_of_all_pairs():
    """Against brute force on an uneven grid, targets few and scattered."""
    grid = (3, 4, 5)
    rng = np.random.default_rng(0)
    target = np.stack([rng.choice(60, 4, replace=False) for _ in range(6)])
    place = np.stack(np.unravel_index(np.arange(60), grid), -1)
    expected = np.sqrt(((place[None, :, None] - place[target][:, None]) ** 2).sum(-1)).min(-1)
    np.testing.assert_allclose(prediction.distance_to_target(jnp.asarray(target), grid), expected, rtol=1e-6)


def test_the_context_weight_rises_between_start_and_end():
    objective = prediction.ContextPrediction(coefficient=0.4, start=0.25, end=0.75)
    got = objective.weight(jnp.array([0.0, 0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(got, [0, 0, 0.2, 0.4, 0.4], atol=1e-7)
    with pytest.raises(ValueError, match=r"start is 0\.9, end 0\.1"):
        prediction.ContextPrediction(start=0.9, end=0.1)
