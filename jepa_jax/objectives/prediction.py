"""The two losses of the baseline: prediction at masked positions, and, later in training, at visible ones."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jepa_jax.objectives import base, temporal_pairs, term

SECOND_HALF = term.Schedule(shape="ramp", start=0.5, end=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction(term.Term):
    """Mean over masks of mean|ẑ − h[target]|^p / p (arXiv:2605.17165)."""

    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Refuses an exponent that has no loss."""
        _check_exponent(self.exponent)

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over target tokens."""

        def of_view(view: base.View) -> Float[Array, ""]:
            h_BxMxD = temporal_pairs.at(latents.target_BxNxD, view.target_index_BxM)
            return power(view.predicted_target_BxMxD - h_BxMxD, self.exponent).mean()

        return term.mean_over_masks(of_view, latents)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextPrediction(term.Term):
    """Mean over masks of mean(|c − h[context]|^p / √d) / p, d the distance to the nearest target token.

    It comes in during the second half of the run: the study starts at step 15,000 and ends at 30,000, whatever the
    run's length; at 30,000 steps the two agree.
    """

    coefficient: float = 0.5
    schedule: term.Schedule = SECOND_HALF
    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Refuses an exponent that has no loss."""
        _check_exponent(self.exponent)

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over context tokens."""

        def of_view(view: base.View) -> Float[Array, ""]:
            h_BxKxD = temporal_pairs.at(latents.target_BxNxD, view.context_index_BxK)
            distance_BxN = distance_to_target(view.target_index_BxM, latents.grid)
            distance_BxK = jnp.take_along_axis(distance_BxN, view.context_index_BxK, axis=1)
            error_BxKxD = power(view.predicted_context_BxKxD - h_BxKxD, self.exponent)
            return (error_BxKxD.mean(-1) / jnp.sqrt(distance_BxK)).mean()

        return term.mean_over_masks(of_view, latents)


def _check_exponent(exponent: float) -> None:
    if not exponent >= 1:
        raise ValueError(f"exponent is {exponent}; expected at least 1")


def power(error: Float[Array, "*S"], exponent: float) -> Float[Array, "*S"]:
    """|error|^p / p, in float32."""
    error = jnp.abs(error.astype(jnp.float32))
    return error if exponent == 1.0 else error**exponent / exponent


def distance_to_target(target_index_BxM: Int[Array, "B M"], grid: tuple[int, int, int]) -> Float[Array, "B N"]:
    """Euclidean distance, in grid units (t, y, x), from every position to the nearest target token of its clip.

    An exact distance transform, one axis at a time: cost N·(T+H+W) a clip, where comparing every context token with
    every target token would cost K·M.
    """
    batch, (time, height, width) = target_index_BxM.shape[0], grid
    # Clip by clip, which a compiler for many devices splits as it is; indices of the batch it would gather first.
    nowhere = jnp.zeros(time * height * width, bool)
    is_target: Bool[Array, "B N"] = jax.vmap(lambda index_M: nowhere.at[index_M].set(True))(target_index_BxM)
    square = jnp.where(is_target, 0.0, jnp.inf).reshape(batch, time, height, width)
    for axis in (1, 2, 3):
        place = jnp.arange(square.shape[axis], dtype=jnp.float32)
        step_IxJ = jnp.square(place[:, None] - place[None])
        moved = jnp.moveaxis(square, axis, -1)
        square = jnp.moveaxis((moved[..., None, :] + step_IxJ).min(-1), -1, axis)
    return jnp.sqrt(square.reshape(batch, -1))
