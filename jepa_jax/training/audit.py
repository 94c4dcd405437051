"""Gradient audit: the size and direction of each objective's own gradient.

An objective can lower its loss without training the encoder, or conflict with the prediction loss. The total loss shows
neither.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jepa_jax.objectives import base
from jepa_jax.training import schedules
from jepa_jax.training.setup import TrainSetup, TrainState
from jepa_jax.training.step import Batch, for_batch, make_latents, prepare

MAIN = "prediction"  # the objective whose gradient the others are compared with


def audit(setup: TrainSetup, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Metrics of each objective on the clips and masks of the next step.

    All objectives share one forward pass; each has its own backward pass.

    Returns:
        `audit/NAME/loss`; the L2 norms `audit/NAME/gradient_encoder`, `…_predictor` and `…_head`; and
        `audit/NAME/cosine_with_prediction`, the cosine similarity of the encoder gradients (0 if either is zero).
    """
    setup = for_batch(setup, batch)
    clips, indices, key = prepare(setup, state, batch)
    context = base.StepContext(step=state.step, key=key, steps=schedules.length(setup.config))
    model = {name: state.params[name] for name in ("encoder", "predictor")}
    latents, pull_back = jax.vjp(lambda params: make_latents(setup, params, state.target_params, clips, indices), model)
    losses, gradients, heads = {}, {}, {}
    for name, objective in setup.config.objectives.items():

        def loss_of(latents: base.Latents, head: Any, objective: base.Objective = objective) -> jax.Array:
            return objective(head, latents, context)[0]

        losses[name], (of_latents, heads[name]) = jax.value_and_grad(loss_of, argnums=(0, 1), allow_int=True)(
            latents, state.params["heads"][name]
        )
        (gradients[name],) = pull_back(of_latents)

    metrics = {}
    for name, gradient in gradients.items():
        metrics[f"audit/{name}/loss"] = losses[name]
        for part in ("encoder", "predictor"):
            metrics[f"audit/{name}/gradient_{part}"] = optax.tree.norm(gradient[part])
        metrics[f"audit/{name}/gradient_head"] = optax.tree.norm(heads[name])
        if MAIN in gradients:
            metrics[f"audit/{name}/cosine_with_{MAIN}"] = _cosine(gradient["encoder"], gradients[MAIN]["encoder"])
    return metrics


def without_gradient(metrics: dict[str, float]) -> list[str]:
    """Objectives with a nonzero loss whose encoder gradient is exactly zero."""
    names = [key.split("/")[1] for key in metrics if key.startswith("audit/") and key.endswith("/loss")]
    return [name for name in names if metrics[f"audit/{name}/loss"] and not metrics[f"audit/{name}/gradient_encoder"]]


def _cosine(a: Any, b: Any) -> jax.Array:
    norms = optax.tree.norm(a) * optax.tree.norm(b)
    return jnp.where(norms > 0, optax.tree.vdot(a, b) / jnp.where(norms > 0, norms, 1.0), 0.0)
