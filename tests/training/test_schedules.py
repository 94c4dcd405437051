"""Learning rate, weight decay and the context weight follow the study's curves."""

import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.config import OptimConfig
from jepa_jax.objectives.prediction import ContextPrediction
from jepa_jax.training import schedules


@pytest.mark.parametrize(
    ("name", "config", "steps"),
    [
        ("paper_lr_warmup300_start1e4_ref6e4_final6e4_T30000_first1000", OptimConfig(), 30_000),
        (
            "cosine_lr_warmup10_start1e4_ref1e3_final1e6_T100",
            OptimConfig(peak_lr=1e-3, final_lr=1e-6, warmup_steps=10),
            100,
        ),
    ],
)
def test_learning_rate(golden, name, config, steps):
    expected = golden("schedules")[name]
    got = schedules.learning_rate(config, steps, jnp.arange(1, len(expected) + 1))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-9)


def test_weight_decay(golden):
    expected = golden("schedules")["cosine_wd_ref0p04_final0p4_T100"]
    got = schedules.weight_decay(OptimConfig(final_weight_decay=0.4), 100, jnp.arange(1, len(expected) + 1))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_context_weight_is_the_studys_at_its_length(golden):
    data = golden("schedules")
    within = data["context_lambda_0p5_steps"] <= 30_000
    weight = ContextPrediction().weight(jnp.asarray(data["context_lambda_0p5_steps"][within]) / 30_000)
    np.testing.assert_allclose(weight, data["context_lambda_0p5_values"][within], atol=1e-6)


def test_without_warmup_the_first_step_has_the_peak_rate():
    assert float(schedules.learning_rate(OptimConfig(warmup_steps=0), 100, 1)) == pytest.approx(6e-4)
