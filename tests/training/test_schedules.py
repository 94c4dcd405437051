"""Edge cases of the schedules, and a comparison with optax. tests/parity compares them with the study."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_jax.config import EmaConfig, OptimConfig
from jepa_jax.training import schedules


def test_first_step_without_warmup_has_the_peak_learning_rate():
    assert float(schedules.learning_rate(OptimConfig(warmup_steps=0), 100, 1)) == pytest.approx(6e-4)


def test_learning_rate_and_weight_decay_agree_with_optax():
    config = OptimConfig(peak_lr=1e-3, final_lr=1e-6, warmup_steps=10, final_weight_decay=0.4)
    step = jnp.arange(1, 101)
    rate = optax.join_schedules(
        [
            optax.linear_schedule(config.start_lr, config.peak_lr, 10),
            optax.cosine_decay_schedule(config.peak_lr, 90, config.final_lr / config.peak_lr),
        ],
        [10],
    )
    decay = optax.cosine_decay_schedule(0.04, 100, 0.4 / 0.04)
    np.testing.assert_allclose(schedules.learning_rate(config, 100, step), rate(step), atol=1e-7, rtol=0)
    np.testing.assert_allclose(schedules.weight_decay(config, 100, step), decay(step), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.9, 0.9, 0.9]), ("linear", [0.925, 0.95, 1.0]), ("cosine", [0.9146447, 0.95, 1.0])],
)
def test_ema_decay_schedules(schedule, expected):
    config = EmaConfig(decay=0.9, schedule=schedule)
    np.testing.assert_allclose(schedules.ema_decay(config, 8, jnp.array([2, 4, 8])), expected, atol=1e-6)
