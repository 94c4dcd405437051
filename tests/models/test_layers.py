"""Initial values and activations."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.models import layers


def test_truncated_normal_weights_are_bounded():
    """With this many samples, some uniform samples are at the lower bound. They must not become weights of 100 σ."""
    weights = np.asarray(layers.trunc_normal(jax.random.key(1), (2**25,)))
    assert np.abs(weights).max() <= 0.02 * 6.001
    assert abs(weights.std() - 0.02) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 5e-7), (jnp.bfloat16, 0.02)])
def test_gelu_and_its_derivative_match_the_normal_distribution(dtype, tolerance):
    """GELU is x Φ(x), and its derivative Φ(x) + x φ(x)."""
    x = jnp.linspace(-6, 6, 97, dtype=dtype)
    normal = statistics.NormalDist()
    exact = [(float(v) * normal.cdf(v), normal.cdf(v) + float(v) * normal.pdf(v)) for v in x]
    values, derivatives = jax.vmap(jax.value_and_grad(layers.gelu))(x)
    assert values.dtype == dtype
    np.testing.assert_allclose(np.stack([values, derivatives], 1).astype(np.float32), exact, atol=tolerance)
