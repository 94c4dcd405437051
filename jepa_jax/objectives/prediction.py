"""The losses of the baseline: prediction at masked positions and, in the second half of training, at visible ones."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jepa_jax.objectives import base, temporal_pairs
from jepa_jax.settings import at_least

SECOND_HALF = base.Schedule(shape="ramp", start=0.5, end=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction(base.Objective):
    """Mean over masks of mean|ẑ − h[target]|^p / p (arXiv:2605.17165)."""

    exponent: float = 1.0

    def __post_init__(self) -> None:
        at_least(self, 1, "exponent")

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the loss over the target tokens."""
        return target_error(view, latents, self.exponent).mean()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextPrediction(base.Objective):
    """Mean over masks of mean(|c − h[context]|^p / √d) / p, where d is the distance to the nearest target token.

    Its weight ramps up over the second half of the run. The study ramps it from step 15,000 to step 30,000, regardless
    of the length of the run; the two agree for a run of 30,000 steps.
    """

    coefficient: float = 0.5
    schedule: base.Schedule = SECOND_HALF
    exponent: float = 1.0

    def __post_init__(self) -> None:
        at_least(self, 1, "exponent")

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the loss over the context tokens."""
        h_BxKxD = temporal_pairs.at(latents.target_BxNxD, view.context_index_BxK)
        distance_BxN = distance_to_target(view.target_index_BxM, latents.grid)
        distance_BxK = jnp.take_along_axis(distance_BxN, view.context_index_BxK, axis=1)
        error_BxKxD = power(view.predicted_context_BxKxD - h_BxKxD, self.exponent)
        return (error_BxKxD.mean(-1) / jnp.sqrt(distance_BxK)).mean()


def target_error(view: base.View, latents: base.Latents, exponent: float) -> Float[Array, "B M D"]:
    """Returns |ẑ − h[target]|^p / p at the target tokens."""
    h_BxMxD = temporal_pairs.at(latents.target_BxNxD, view.target_index_BxM)
    return power(view.predicted_target_BxMxD - h_BxMxD, exponent)


def power(error: Float[Array, "*S"], exponent: float) -> Float[Array, "*S"]:
    """Returns |error|^p / p in float32."""
    error = jnp.abs(error.astype(jnp.float32))
    return error if exponent == 1.0 else error**exponent / exponent


def distance_to_target(target_index_BxM: Int[Array, "B M"], grid: tuple[int, int, int]) -> Float[Array, "B N"]:
    """Returns the Euclidean distance in grid units (t, y, x) from every position to the nearest target token.

    An exact distance transform, one axis at a time, costs N·(T+H+W) per clip; comparing every context token with every
    target token would cost K·M.
    """
    batch, (time, height, width) = target_index_BxM.shape[0], grid
    # vmap over clips: a scatter with indices of the whole batch would be gathered when compiled for several devices.
    nowhere = jnp.zeros(time * height * width, bool)
    is_target: Bool[Array, "B N"] = jax.vmap(lambda index_M: nowhere.at[index_M].set(True))(target_index_BxM)
    square = jnp.where(is_target, 0.0, jnp.inf).reshape(batch, time, height, width)
    for axis in (1, 2, 3):
        place = jnp.arange(square.shape[axis], dtype=jnp.float32)
        step_IxJ = jnp.square(place[:, None] - place[None])
        moved = jnp.moveaxis(square, axis, -1)
        square = jnp.moveaxis((moved[..., None, :] + step_IxJ).min(-1), -1, axis)
    return jnp.sqrt(square.reshape(batch, -1))
