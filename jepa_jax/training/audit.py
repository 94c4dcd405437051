"""What each objective does to the model: the size and direction of its own gradient.

An objective can lower its loss without the encoder learning from it, or fight the prediction loss; the sum of all
losses shows neither.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jepa_jax.objectives import base
from jepa_jax.training.state import TrainState
from jepa_jax.training.step import Batch, Learner, for_batch, make_latents, prepare

MAIN = "prediction"  # whose gradient the others are compared with


def audit(learner: Learner, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
    """Metrics of each objective on the clips and masks of the step that `state` is about to make.

    One forward pass for all, one backward pass each.

    Returns:
        `audit/NAME/loss`; `audit/NAME/gradient_encoder`, `…_predictor`, `…_head`: L2 norms; and
        `audit/NAME/cosine_with_prediction`: of the gradients on the encoder (0 where either has none).
    """
    learner = for_batch(learner, batch)
    clips, indices, key = prepare(learner, state, batch)
    moment = base.Moment(step=state.step, key=key, steps=learner.config.steps)
    model = {name: state.params[name] for name in ("encoder", "predictor")}
    latents, pull_back = jax.vjp(
        lambda params: make_latents(learner, params, state.target_params, clips, indices), model
    )
    losses, gradients, heads = {}, {}, {}
    for name, objective in learner.config.objectives.items():

        def loss_of(latents: base.Latents, head: Any, objective: base.Objective = objective) -> jax.Array:
            return objective(head, latents, moment)[0]

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
    """Objectives that have a loss, and whose gradient on the encoder is exactly zero."""
    names = [key.split("/")[1] for key in metrics if key.startswith("audit/") and key.endswith("/loss")]
    return [name for name in names if metrics[f"audit/{name}/loss"] and not metrics[f"audit/{name}/gradient_encoder"]]


def _cosine(a: Any, b: Any) -> jax.Array:
    norms = optax.tree.norm(a) * optax.tree.norm(b)
    return jnp.where(norms > 0, optax.tree.vdot(a, b) / jnp.where(norms > 0, norms, 1.0), 0.0)
