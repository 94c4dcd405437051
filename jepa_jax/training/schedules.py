"""Schedules as functions of the 1-based optimizer step (arXiv:2605.17165, after V-JEPA).

All schedules of a run, including those of objectives, are planned for `length(config)` steps and keep their final
values after that.

optax's cosine schedules agree with these to 1e-7 but are not used: they cannot start at 0, and in float32 the final
learning rate has a relative error of up to 2e-5.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jepa_jax.config import EmaConfig, OptimConfig, RunConfig

Step = Any  # 1-based: an int, or an int array of any shape


def length(config: RunConfig) -> int:
    """The planned length of the run's schedules in steps."""
    return config.schedule_steps or config.steps


def hold(steps: int, step: Step) -> Int[Array, "*s"]:
    """The step at which to evaluate a schedule of `steps` steps, clamped to its last step."""
    return jnp.minimum(step, steps)


def learning_rate(config: OptimConfig, steps: int, step: Step) -> Float[Array, "*s"]:
    """Warm-up: start + (peak − start)·s/W; then final + (peak − final)·½(1 + cos π(s − W)/(T − W)).

    T includes the warm-up. The cosine is not clamped after T; see `hold`.

    Args:
        config: rates and warm-up length W.
        steps: the length of the schedule T.
        step: 1-based step s.
    """
    s, warmup = jnp.asarray(step, jnp.float32), config.warmup_steps
    rising = config.start_lr + (config.peak_lr - config.start_lr) * s / max(warmup, 1)
    done = (s - warmup) / max(steps - warmup, 1)
    return jnp.where(s < warmup, rising, _cosine(config.peak_lr, config.final_lr, done))


def weight_decay(config: OptimConfig, steps: int, step: Step) -> Float[Array, "*s"]:
    """A cosine without warm-up: final + (first − final)·½(1 + cos πs/T)."""
    return _cosine(config.weight_decay, config.final_weight_decay, jnp.asarray(step, jnp.float32) / steps)


def ema_decay(config: EmaConfig, steps: int, step: Step) -> Float[Array, "*s"]:
    """EMA decay of the target encoder: constant, or from `config.decay` to 1 as a linear or cosine function of s/T."""
    progress = jnp.asarray(step, jnp.float32) / steps
    if config.schedule == "linear":
        return config.decay + (1.0 - config.decay) * progress
    if config.schedule == "cosine":
        return _cosine(config.decay, 1.0, progress)
    return jnp.full_like(progress, config.decay)


def _cosine(first: float, final: float, progress: jax.Array) -> jax.Array:
    return final + (first - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
