"""The audit measures each objective alone. Gradients add up to those of the step; a missing gradient is reported."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from jepa_jax.config import Config
from jepa_jax.objectives import base, prediction
from jepa_jax.settings import parse
from jepa_jax.training import audit, step
from jepa_jax.training.setup import build_setup, init_state

SETTINGS = tiny_run.SETTINGS | {
    "objectives": {"prediction": {}, "context_prediction": {"schedule": {"shape": "constant"}}}
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dead(base.Objective):
    """A loss with a head and no gradient on the encoder."""

    def init(self, key, dims):
        return {"scale": jnp.ones(())}

    def view_value(self, head, view, latents):
        return head["scale"] * jnp.square(jax.lax.stop_gradient(view.context_BxKxD)).mean()


@pytest.fixture(scope="module")
def found():
    config = parse(Config, SETTINGS)
    objectives = {**config.objectives, "dead": Dead(), "opposed": prediction.Prediction(coefficient=-2.0)}
    setup = build_setup(dataclasses.replace(config, objectives=objectives))
    state = jax.jit(functools.partial(init_state, setup))(0)
    video = np.random.default_rng(0).integers(0, 256, (8, 4, 16, 16, 3), dtype=np.uint8)
    metrics = jax.jit(functools.partial(audit.audit, setup))(state, {"video": video})
    after = jax.jit(functools.partial(step.train_step, setup))(state, {"video": video})[1]
    return {name: float(value) for name, value in metrics.items()}, after


@pytest.mark.slow
def test_losses_match_the_training_step(found):
    metrics, after = found
    for name in ("prediction", "context_prediction", "dead", "opposed"):
        assert metrics[f"audit/{name}/loss"] == pytest.approx(float(after[f"loss/{name}"]), rel=1e-5)


@pytest.mark.slow
def test_gradient_norms_and_cosines(found):
    metrics, _ = found
    norm = metrics["audit/prediction/gradient_encoder"]
    assert norm > 0
    assert metrics["audit/opposed/gradient_encoder"] == pytest.approx(2 * norm, rel=1e-4)
    assert metrics["audit/prediction/cosine_with_prediction"] == pytest.approx(1, abs=1e-5)
    assert metrics["audit/opposed/cosine_with_prediction"] == pytest.approx(-1, abs=1e-5)
    assert -1 < metrics["audit/context_prediction/cosine_with_prediction"] < 1
    assert metrics["audit/prediction/gradient_predictor"] > 0
    assert metrics["audit/prediction/gradient_head"] == 0


@pytest.mark.slow
def test_gradients_add_up_to_those_of_the_training_step(found):
    """Prediction and its opposite sum to (1 − 2)·g, so the total with the context loss has a norm in these bounds."""
    metrics, after = found
    parts = {part: metrics[f"audit/prediction/gradient_{part}"] for part in ("encoder", "predictor")}
    context = {part: metrics[f"audit/context_prediction/gradient_{part}"] for part in ("encoder", "predictor")}
    head = metrics["audit/dead/gradient_head"]
    norm, other = (float(np.hypot(*p.values())) for p in (parts, context))
    whole = float(after["gradient_norm"])
    assert np.hypot(abs(norm - other), head) - 1e-4 <= whole <= np.hypot(norm + other, head) + 1e-4


@pytest.mark.slow
def test_objective_without_encoder_gradient_is_reported(found):
    metrics, _ = found
    assert audit.without_gradient(metrics) == ["dead"]
    assert metrics["audit/dead/gradient_head"] > 0
    assert metrics["audit/dead/cosine_with_prediction"] == 0
    # An objective whose weight is still 0 is not reported.
    assert audit.without_gradient({"audit/a/loss": 0.0, "audit/a/gradient_encoder": 0.0}) == []
