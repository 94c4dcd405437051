"""Coefficients follow their schedules."""

import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.config import Config, ConfigError, parse
from jepa_jax.objectives import delta, term


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (term.Schedule(), [1, 1, 1, 1, 1]),
        (term.Schedule(shape="cosine"), [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0]),
        (term.Schedule(shape="ramp", start=0.25, end=0.75), [0, 0, 0.5, 1, 1]),
        (term.Schedule(shape="ramp", start=0.5, end=0.5), [0, 0, 1, 1, 1]),
    ],
)
def test_schedules(schedule, expected):
    got = [schedule(jnp.asarray(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_schedule_scales_loss_and_gradient(make_latents, evaluate):
    latents = make_latents()
    falling = delta.Delta(schedule=term.Schedule(shape="cosine"))
    plain, (of_plain, _) = evaluate(delta.Delta(), latents)
    half, (of_half, _) = evaluate(falling, latents, progress=0.5)
    assert float(half) == pytest.approx(float(plain) / 2, rel=1e-6)
    np.testing.assert_allclose(of_half["views"][0][0], of_plain["views"][0][0] / 2, rtol=1e-5)


def test_schedules_come_from_the_config():
    settings = {"objectives": {"delta": {"schedule": {"shape": "ramp", "end": 0.5}}}}
    assert parse(Config, settings).objectives == {"delta": delta.Delta(schedule=term.Schedule(shape="ramp", end=0.5))}
    with pytest.raises(ConfigError, match=r"config\.objectives\.delta\.schedule: start is 0\.9, end 0\.5"):
        parse(Config, {"objectives": {"delta": {"schedule": {"start": 0.9, "end": 0.5}}}})
