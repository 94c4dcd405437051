"""The base class: schedules of coefficients, and the loss as the sum of objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.config import Config
from jepa_jax.objectives import base, delta
from jepa_jax.settings import ConfigError, parse


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (base.Schedule(), [1, 1, 1, 1, 1]),
        (base.Schedule(shape="cosine"), [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0]),
        (base.Schedule(shape="ramp", start=0.25, end=0.75), [0, 0, 0.5, 1, 1]),
        (base.Schedule(shape="ramp", start=0.5, end=0.5), [0, 0, 1, 1, 1]),
    ],
)
def test_schedule_values(schedule, expected):
    values = [schedule(jnp.asarray(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_schedule_scales_loss_and_gradient(make_latents, evaluate):
    latents = make_latents()
    falling = delta.Delta(schedule=base.Schedule(shape="cosine"))
    plain, (of_plain, _) = evaluate(delta.Delta(), latents)
    half, (of_half, _) = evaluate(falling, latents, progress=0.5)
    assert float(half) == pytest.approx(float(plain) / 2, rel=1e-6)
    np.testing.assert_allclose(of_half["views"][0][0], of_plain["views"][0][0] / 2, rtol=1e-5)


def test_operations_of_an_objective_are_named_in_profiles(make_latents):
    context = base.StepContext(jnp.zeros((), jnp.int32), jax.random.key(0), 1)
    step = jax.jit(lambda latents: base.total_loss({"mine": delta.Delta()}, {"mine": {}}, latents, context)[0])
    assert "objective/mine" in step.lower(make_latents()).compile().as_text()


def test_schedules_are_parsed_from_the_config():
    settings = {"objectives": {"delta": {"schedule": {"shape": "ramp", "end": 0.5}}}}
    assert parse(Config, settings).objectives == {"delta": delta.Delta(schedule=base.Schedule(shape="ramp", end=0.5))}
    with pytest.raises(ConfigError, match=r"config\.objectives\.delta\.schedule: start is 0\.9, end 0\.5"):
        parse(Config, {"objectives": {"delta": {"schedule": {"start": 0.9, "end": 0.5}}}})
