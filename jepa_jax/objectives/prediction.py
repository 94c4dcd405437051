"""The two losses of the baseline: prediction at masked positions, and, later in training, at visible ones."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jepa_jax.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Mean over masks of mean|ẑ − h[target]|^p / p (arXiv:2605.17165)."""

    coefficient: float = 1.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Refuses an exponent that has no loss."""
        _check_exponent(self.exponent)

    def init(self, key: jax.Array, dims: base.Dims) -> base.Params:
        """No head."""
        return {}

    def __call__(
        self, head: base.Params, latents: base.Latents, moment: base.Moment
    ) -> tuple[Float[Array, ""], base.Metrics]:
        """The loss over target tokens."""
        losses = []
        for view in latents.views:
            h_BxMxD = jnp.take_along_axis(latents.target_BxNxD, view.target_index_BxM[..., None], axis=1)
            losses.append(power(view.predicted_target_BxMxD - h_BxMxD, self.exponent).mean())
        return self.coefficient * jnp.stack(losses).mean(), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextPrediction:
    """Mean over masks of mean(|c − h[context]|^p / √d) / p, d the distance to the nearest target token.

    Its weight is 0 until `start` of the run (a fraction), rises linearly to `coefficient` at `end`, and stays; with
    start = end = 0 it is constant.
    The study starts at step 15,000 and ends at 30,000, whatever the run's length; at 30,000 steps the two agree.
    """

    coefficient: float = 0.5
    exponent: float = 1.0
    start: float = 0.5
    end: float = 1.0

    def __post_init__(self) -> None:
        """Refuses an exponent that has no loss, and a ramp that runs backwards."""
        _check_exponent(self.exponent)
        if not 0 <= self.start <= self.end:
            raise ValueError(f"start is {self.start}, end {self.end}; expected 0 ≤ start ≤ end (fractions of the run)")

    def init(self, key: jax.Array, dims: base.Dims) -> base.Params:
        """No head."""
        return {}

    def weight(self, progress: Float[Array, "..."]) -> Float[Array, "..."]:
        """The coefficient at a fraction of the run."""
        rising = jnp.clip((progress - self.start) / max(self.end - self.start, 1e-9), 0.0, 1.0)
        return self.coefficient * jnp.where(progress >= self.end, 1.0, rising)

    def __call__(
        self, head: base.Params, latents: base.Latents, moment: base.Moment
    ) -> tuple[Float[Array, ""], base.Metrics]:
        """The loss over context tokens."""
        losses = []
        for view in latents.views:
            h_BxKxD = jnp.take_along_axis(latents.target_BxNxD, view.context_index_BxK[..., None], axis=1)
            distance_BxN = distance_to_target(view.target_index_BxM, latents.grid)
            distance_BxK = jnp.take_along_axis(distance_BxN, view.context_index_BxK, axis=1)
            error_BxKxD = power(view.predicted_context_BxKxD - h_BxKxD, self.exponent)
            losses.append((error_BxKxD.mean(-1) / jnp.sqrt(distance_BxK)).mean())
        weight = self.weight(moment.progress)
        return weight * jnp.stack(losses).mean(), {"weight": weight}


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
