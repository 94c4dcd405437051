"""Optax optimizers by name, with a scheduled learning rate and decoupled weight decay.

To add one, add a line to `OPTIMIZERS`.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jepa_jax.config import OptimConfig
from jepa_jax.settings import nearest
from jepa_jax.training import schedules

UNDECAYED = ("bias", "scale")
MUON_RMS = 0.2  # RMS of Muon's updates; close to Adam's, so both can use the same learning rate (arXiv:2502.16982)


def decayed(params: Any) -> Any:
    """A mask of the parameters with weight decay: all except biases and LayerNorm scales.

    Modality embeddings and mask tokens are decayed, as in the study.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in UNDECAYED, params)


def matrices(params: Any) -> Any:
    """The axes of each parameter that Muon orthogonalizes; None for parameters that Adam updates.

    Muon updates the kernels of Dense layers, [in, out], or [blocks, in, out] if blocks are scanned.
    """

    def axes(path: Any, param: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if path[-1].key != "kernel" or param.ndim not in (2, 3):
            return None
        return optax.contrib.MuonDimensionNumbers(param.ndim - 2, param.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def _muon(config: OptimConfig) -> optax.GradientTransformation:
    return optax.contrib.muon(
        learning_rate=-1.0,  # the sign that `optax.scale_by_learning_rate` expects
        beta=config.beta1,
        eps=config.epsilon,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=MUON_RMS,
    )


# How each optimizer scales gradients, before weight decay and the learning rate.
OPTIMIZERS: dict[str, Callable[[OptimConfig], optax.GradientTransformation]] = {
    "adamw": lambda c: optax.scale_by_adam(c.beta1, c.beta2, c.epsilon),
    "nadamw": lambda c: optax.scale_by_adam(c.beta1, c.beta2, c.epsilon, nesterov=True),
    "lion": lambda c: optax.scale_by_lion(c.beta1, c.beta2),
    "muon": _muon,
    "sgd": lambda c: optax.trace(c.beta1),
}


def build(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Builds gradient clipping, the named optimizer, decoupled weight decay and the learning rate schedule.

    Schedules are functions of the optimizer's own update count and keep their final values after `steps`. Gradient
    clipping adds no state.

    Args:
        config: the optimizer's name and settings.
        steps: the length of the schedules.

    Raises:
        ValueError: unknown optimizer name.
    """
    if config.name not in OPTIMIZERS:
        raise ValueError(f"name is {config.name!r}, which is not an optimizer.{nearest(config.name, OPTIMIZERS)}")

    def step(count: Any) -> Any:
        return schedules.hold(steps, count + 1)

    chain = optax.chain(
        OPTIMIZERS[config.name](config),
        optax.add_decayed_weights(
            lambda count: schedules.weight_decay(config, steps, step(count)),  # pyright: ignore[reportArgumentType]
            mask=decayed,
        ),
        optax.scale_by_learning_rate(lambda count: schedules.learning_rate(config, steps, step(count))),
    )
    return _clipped(chain, config.grad_clip_norm) if config.grad_clip_norm else chain


def _clipped(inner: optax.GradientTransformation, norm: float) -> optax.GradientTransformation:
    """Applies `inner` to gradients clipped to a global norm. The state is that of `inner`, as clipping has none."""
    clip = optax.clip_by_global_norm(norm)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        clipped, _ = clip.update(updates, optax.EmptyState())
        return inner.update(clipped, state, params)

    return optax.GradientTransformation(inner.init, update)  # pyright: ignore[reportArgumentType]
