"""Adam's updates are exact from the first step on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jepa_jax.training import optimizer


def test_a_constant_gradient_is_scaled_to_its_sign():
    adam = optimizer.scale_by_adam(0.9, 0.999, 1e-8)
    gradient = {"w": jnp.array([3.0, -0.5])}
    state = adam.init(gradient)
    for _ in range(20):
        update, state = adam.update(gradient, state)
        np.testing.assert_allclose(update["w"], [1.0, -1.0], rtol=1e-6)


def test_updates_and_state_are_those_of_optax():
    ours, theirs = optimizer.scale_by_adam(0.8, 0.95, 1e-6), optax.scale_by_adam(0.8, 0.95, 1e-6)
    params = {"w": jnp.zeros((3, 2))}
    state, expected_state = ours.init(params), theirs.init(params)
    for i in range(5):
        gradient = {"w": jax.random.normal(jax.random.key(i), (3, 2))}
        update, state = ours.update(gradient, state)
        expected, expected_state = theirs.update(gradient, expected_state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), update, expected)
        assert jax.tree.structure(state) == jax.tree.structure(expected_state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, expected_state)
