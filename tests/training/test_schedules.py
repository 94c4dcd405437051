"""The learning rate at the edges of its curve; that the curves are the study's, tests/test_parity.py checks."""

import pytest

from jepa_jax.config import OptimConfig
from jepa_jax.training import schedules


def test_without_warmup_the_first_step_has_the_peak_rate():
    assert float(schedules.learning_rate(OptimConfig(warmup_steps=0), 100, 1)) == pytest.approx(6e-4)
