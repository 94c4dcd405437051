"""Initial values."""

import jax
import numpy as np

from jepa_jax.models import layers


def test_truncated_normal_weights_are_bounded():
    """With this many samples, some uniform samples are at the lower bound. They must not become weights of 100 σ."""
    weights = np.asarray(layers.trunc_normal(jax.random.key(1), (2**25,)))
    assert np.abs(weights).max() <= 0.02 * 6.001
    assert abs(weights.std() - 0.02) < 1e-5
