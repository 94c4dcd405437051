"""What objectives have in common: a coefficient that may follow a schedule, and a mean over masks."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jepa_jax.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """A factor in [0, 1] on a coefficient, as a function of the share of the run that is done.

    `constant` is 1. `cosine` falls as ½(1 + cos πx) and `ramp` rises as x, where x goes from 0 to 1 between the shares
    `start` and `end` and stays what it is outside. The study's cosine moves once an epoch (100 a run), this one
    every step: at the first step of an epoch they agree.
    """

    shape: Literal["constant", "cosine", "ramp"] = "constant"
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Refuses a schedule that runs backwards."""
        if not 0 <= self.start <= self.end:
            raise ValueError(f"start is {self.start}, end {self.end}; expected 0 ≤ start ≤ end (shares of the run)")

    def __call__(self, progress: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """The factor at a share of the run."""
        if self.shape == "constant":
            return jnp.ones_like(progress)
        x = jnp.clip((progress - self.start) / max(self.end - self.start, 1e-9), 0.0, 1.0)
        x = jnp.where(progress >= self.end, 1.0, x)
        return 0.5 * (1 + jnp.cos(jnp.pi * x)) if self.shape == "cosine" else x


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """Base of the objectives, which define `value` (and `init`, if they have a head)."""

    coefficient: float = 1.0
    schedule: Schedule = Schedule()

    def init(self, key: jax.Array, dims: base.Dims) -> base.Params:
        """No head, unless the objective says otherwise."""
        return {}

    def weight(self, progress: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """The coefficient at a share of the run."""
        return self.coefficient * self.schedule(progress)

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss without its coefficient."""
        raise NotImplementedError

    def __call__(
        self, head: base.Params, latents: base.Latents, moment: base.Moment
    ) -> tuple[Float[Array, ""], base.Metrics]:
        """The loss, coefficient included; logs the coefficient where it moves."""
        weight = self.weight(moment.progress)
        metrics = {} if self.schedule.shape == "constant" else {"weight": weight}
        return weight * self.value(head, latents, moment), metrics


def mean_over_masks(value: Callable[[base.View], Float[Array, ""]], latents: base.Latents) -> Float[Array, ""]:
    """The mean of a loss over the masks of a step."""
    return jnp.stack([value(view) for view in latents.views]).mean()


def mean_where(x_BxSxR: Float[Array, "B S R"], valid_BxS: Bool[Array, "B S"]) -> Float[Array, ""]:
    """The mean over valid tokens, channels included; 0 where no token is valid."""
    count = jnp.maximum(valid_BxS.sum(), 1) * x_BxSxR.shape[-1]
    return jnp.where(valid_BxS[..., None], x_BxSxR, 0.0).sum() / count
