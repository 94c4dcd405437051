"""Schedules as functions of the 1-based optimiser step (arXiv:2605.17165, after V-JEPA)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.config import OptimConfig

Step = Any  # 1-based: an int, or an int array of any shape


def learning_rate(config: OptimConfig, steps: int, step: Step) -> Float[Array, "*s"]:
    """Warm-up: start + (peak − start)·s/W; then final + (peak − final)·½(1 + cos π(s − W)/(T − W)).

    T counts the warm-up. The cosine is not clamped past T.

    Args:
        config: rates and warm-up length W.
        steps: the run's length T.
        step: 1-based step s.
    """
    s, warmup = jnp.asarray(step, jnp.float32), config.warmup_steps
    rising = config.start_lr + (config.peak_lr - config.start_lr) * s / max(warmup, 1)
    done = (s - warmup) / max(steps - warmup, 1)
    return jnp.where(s < warmup, rising, _cosine(config.peak_lr, config.final_lr, done))


def weight_decay(config: OptimConfig, steps: int, step: Step) -> Float[Array, "*s"]:
    """The same cosine without warm-up: final + (first − final)·½(1 + cos πs/T)."""
    return _cosine(config.weight_decay, config.final_weight_decay, jnp.asarray(step, jnp.float32) / steps)


def _cosine(first: float, final: float, progress: jax.Array) -> jax.Array:
    return final + (first - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
