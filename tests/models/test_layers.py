"""Initial values and activations."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import models
from jepa_jax.config import EncoderConfig
from jepa_jax.models import layers


def test_truncated_normal_weights_are_bounded():
    """With this many samples, some uniform samples are at the lower bound. They must not become weights of 100 σ."""
    weights = np.asarray(layers.trunc_normal(jax.random.key(1), (2**25,)))
    assert np.abs(weights).max() <= 0.02 * 6.001
    assert abs(weights.std() - 0.02) < 1e-5


def test_initial_weights_of_a_seed_stay_the_same():
    """Seeds in published results name these weights, so no change of the code may draw others."""
    encoder = models.build_encoder(EncoderConfig(size="32x4x2", patch=8, levels=2))
    params = encoder.init(jax.random.key(239), jnp.zeros((1, 8, 32, 32, 3)))["params"]
    first, second = (params[f"groups_{level}"]["block"] for level in range(2))
    drawn = [
        params["patch_embedding"]["kernel"][0, 0, 0, 0, 0],
        first["qkv"]["kernel"][0, 0, 0],
        first["mlp_in"]["kernel"][1, 0, 0],
        second["mlp_out"]["kernel"][1, 0, 0],
    ]
    np.testing.assert_allclose(drawn, [-0.0329054072, -0.0018368866, -0.0076353429, 0.0080590863], rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 5e-7), (jnp.bfloat16, 0.02)])
def test_gelu_and_its_derivative_match_the_normal_distribution(dtype, tolerance):
    """GELU is x Φ(x), and its derivative Φ(x) + x φ(x)."""
    x = jnp.linspace(-6, 6, 97, dtype=dtype)
    normal = statistics.NormalDist()
    exact = [(float(v) * normal.cdf(v), normal.cdf(v) + float(v) * normal.pdf(v)) for v in x]
    values, derivatives = jax.vmap(jax.value_and_grad(layers.gelu))(x)
    assert values.dtype == dtype
    np.testing.assert_allclose(np.stack([values, derivatives], 1).astype(np.float32), exact, atol=tolerance)
