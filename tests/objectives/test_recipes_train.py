"""Every recipe trains with a finite, decreasing loss, and the audit finds exactly the expected gradients."""

import functools

import jax
import numpy as np
import pytest

from jepa_jax import recipes
from jepa_jax.config import Config, defaults
from jepa_jax.settings import parse
from jepa_jax.training import audit, step
from jepa_jax.training.setup import build_setup, init_state

SLOW = ("fwm_hw_ld_paper_code", "sigreg")
STEPS = 10


def tiny(recipe):
    config = defaults(Config)
    config.steps, config.batch_size, config.dtype = STEPS, 8, "float32"
    config.clip.frames, config.clip.size = 8, 16
    config.encoder.size, config.encoder.patch, config.encoder.levels = "16x2x2", 4, 2
    config.predictor.size = "16x1x2"
    config.optim.warmup_steps, config.optim.peak_lr, config.optim.final_lr = 0, 3e-3, 3e-3
    return parse(Config, recipes.apply(config, recipe))


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.release) for name in recipes.RECIPES],
)
def test_recipe_decreases_the_loss_and_has_the_expected_gradients(recipe):
    config = tiny(recipe)
    setup = build_setup(config)
    state = jax.jit(functools.partial(init_state, setup))(0)
    batch = {"video": np.random.default_rng(0).integers(0, 256, (8, 8, 16, 16, 3), dtype=np.uint8)}

    @jax.jit  # one program, because compilation dominates the time of this test
    def audit_and_train(state, batch):
        return audit.audit(setup, state, batch), step.train_step(setup, state, batch)

    losses, found = [], {}
    for number in range(STEPS):
        audited, (state, metrics) = audit_and_train(state, batch)
        if number == 0:
            found = {name: float(value) for name, value in audited.items()}
        assert np.isfinite(float(metrics["loss"]))
        # Without the context loss, whose weight increases. The prediction loss alone may increase in favour of SIGReg.
        losses.append(float(metrics["loss"] - metrics["loss/context_prediction"]))
    assert np.mean(losses[-3:]) < np.mean(losses[:3])

    assert {name.split("/")[1] for name in found} == set(config.objectives)
    assert all(np.isfinite(value) for value in found.values())
    assert found["audit/context_prediction/loss"] == 0  # its weight is still 0
    for name in set(config.objectives) - {"context_prediction"}:
        assert found[f"audit/{name}/loss"] > 0
        with_head = bool(state.params["heads"][name])
        without_gradient = recipe.endswith("paper_code") and name == "latent_dynamics"
        assert (found[f"audit/{name}/gradient_encoder"] > 0) == (not without_gradient), name
        assert (found[f"audit/{name}/gradient_head"] > 0) == (with_head and not without_gradient), name
    expected = ["latent_dynamics"] if recipe.endswith("paper_code") else []
    assert audit.without_gradient(found) == expected
