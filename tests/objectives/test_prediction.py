"""Distances to the target, and the weight of the context loss."""

import jax.numpy as jnp
import numpy as np

from jepa_jax.objectives import prediction


def test_distance_to_target_matches_all_pairs():
    """Compares with brute force, on an uneven grid with few scattered targets."""
    grid = (3, 4, 5)
    rng = np.random.default_rng(0)
    target = np.stack([rng.choice(60, 4, replace=False) for _ in range(6)])
    position = np.stack(np.unravel_index(np.arange(60), grid), -1)
    expected = np.sqrt(((position[None, :, None] - position[target][:, None]) ** 2).sum(-1)).min(-1)
    np.testing.assert_allclose(prediction.distance_to_target(jnp.asarray(target), grid), expected, rtol=1e-6)


def test_context_weight_increases_in_the_second_half():
    objective = prediction.ContextPrediction(coefficient=0.4)
    weight = objective.weight(jnp.array([0.0, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(weight, [0, 0, 0.2, 0.4], atol=1e-7)
