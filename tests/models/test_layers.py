"""Initial values."""

import jax
import numpy as np

from jepa_jax.models import layers


def test_no_weight_starts_far_out():
    """Among so many draws there are some at the lower bound, which must not be a weight of 100 σ."""
    weights = np.asarray(layers.trunc_normal(jax.random.key(1), (2**25,)))
    assert np.abs(weights).max() <= 0.02 * 6.001
    assert abs(weights.std() - 0.02) < 1e-5
