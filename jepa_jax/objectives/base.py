"""The base class of objectives, their inputs, and the total loss."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jepa_jax.objectives import channel_split

Params = Any  # nested dict of arrays
ArrayLeaf = Any  # a jax.Array; inside JAX's pytree transformations it may be another object
Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """The batch under one mask: B clips of K context and M target tokens, with D features per token."""

    context_index_BxK: ArrayLeaf  # int32 positions, time-major
    target_index_BxM: ArrayLeaf
    context_BxKxD: ArrayLeaf  # from the online encoder; all levels, not normalised
    predicted_target_BxMxD: ArrayLeaf
    predicted_context_BxKxD: ArrayLeaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Latents:
    """Inputs of the objectives in a step. They exclude the model and its input, except a mean colour per token."""

    views: tuple[View, ...]  # one per mask
    target_BxNxD: ArrayLeaf  # from the target encoder; each level normalised; no gradient unless EMA is off
    colour_BxNxC: ArrayLeaf  # mean normalised RGB of a token's pixels
    grid: tuple[int, int, int] = dataclasses.field(metadata={"static": True})  # T, H, W; N = T·H·W
    levels: int = dataclasses.field(metadata={"static": True})  # D is the concatenation of this many equal parts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepContext:
    """The step number and the random key of the step."""

    step: ArrayLeaf  # int32 scalar, 0-based
    key: ArrayLeaf
    steps: int = dataclasses.field(metadata={"static": True})  # number of steps that schedules cover

    @property
    def progress(self) -> jax.Array:
        """The completed fraction of the schedules, in [0, 1]."""
        return jnp.minimum(self.step / self.steps, 1.0)


@dataclasses.dataclass(frozen=True)
class Dims:
    """Sizes for initialising heads."""

    features: int  # D
    levels: int  # D is the concatenation of this many equal parts
    colours: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """A factor in [0, 1] that scales a coefficient, as a function of the completed fraction of the run.

    `constant` is 1. `cosine` falls as ½(1 + cos πx) and `ramp` rises as x. Between the fractions `start` and `end` of
    the run, x rises linearly from 0 to 1; it is 0 before `start` and 1 after `end`. The study's cosine changes once per
    epoch (100 per run), this one every step; the two agree at the first step of each epoch.
    """

    shape: Literal["constant", "cosine", "ramp"] = "constant"
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"start is {self.start}, end {self.end}; expected 0 ≤ start ≤ end (shares of the run)")

    def __call__(self, progress: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """Returns the factor at a completed fraction of the run."""
        if self.shape == "constant":
            return jnp.ones_like(progress)
        x = jnp.clip((progress - self.start) / max(self.end - self.start, 1e-9), 0.0, 1.0)
        x = jnp.where(progress >= self.end, 1.0, x)
        return 0.5 * (1 + jnp.cos(jnp.pi * x)) if self.shape == "cosine" else x


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Base class of objectives: a frozen dataclass of settings with a loss.

    A subclass defines `view_value`, the loss of one mask, or `value`, the loss of a step. A subclass with a head also
    defines `init`. Every setting needs a default.

    Attributes:
        coefficient: the weight of the loss. An objective with coefficient 0 is disabled.
        schedule: scales the coefficient during the run.
    """

    coefficient: float = 1.0
    schedule: Schedule = Schedule()

    def init(self, key: jax.Array, dims: Dims) -> Params:
        """Returns the initial parameters of the head, or {} if the objective has none."""
        return {}

    def check_beside(self, objectives: Mapping[str, Any]) -> None:
        """Raises ValueError if the objectives of a run, which include this one, cannot be used together."""
        channel_split.check_equal(objectives)

    def weight(self, progress: Float[Array, "*S"]) -> Float[Array, "*S"]:
        """Returns the scheduled coefficient at a completed fraction of the run."""
        return self.coefficient * self.schedule(progress)

    def value(self, head: Params, latents: Latents, context: StepContext) -> Float[Array, ""]:
        """Returns the loss of a step, without the coefficient; by default the mean of `view_value` over the masks."""
        return mean_over_masks(lambda view: self.view_value(head, view, latents), latents)

    def view_value(self, head: Params, view: View, latents: Latents) -> Float[Array, ""]:
        """Returns the loss of one mask, without the coefficient."""
        raise NotImplementedError(f"{type(self).__name__} defines neither value nor view_value.")

    def __call__(self, head: Params, latents: Latents, context: StepContext) -> tuple[Float[Array, ""], Metrics]:
        """Returns the weighted loss and metrics. With a schedule, the metrics include the coefficient as `weight`."""
        weight = self.weight(context.progress)
        metrics = {} if self.schedule.shape == "constant" else {"weight": weight}
        return weight * self.value(head, latents, context), metrics


def total_loss(
    objectives: Mapping[str, Objective], heads: Mapping[str, Params], latents: Latents, context: StepContext
) -> tuple[Float[Array, ""], Metrics]:
    """Returns the sum of all objectives and the metrics `loss/NAME` and `NAME/…`.

    Profiles show the operations of each objective in the scope `objective/NAME`.
    """
    total, metrics = jnp.zeros(()), {}
    for name, objective in objectives.items():
        with jax.named_scope(f"objective/{name}"):
            loss, extra = objective(heads[name], latents, context)
        total += loss
        metrics[f"loss/{name}"] = loss
        metrics |= {f"{name}/{key}": value for key, value in extra.items()}
    return total, metrics


def require_positive(objective: Any, *names: str) -> None:
    """Raises ValueError unless all of these settings are greater than 0."""
    for name in names:
        if not (value := getattr(objective, name)) > 0:
            raise ValueError(f"{name} is {value}; expected more than 0")


def mean_over_masks(value: Callable[[View], Float[Array, ""]], latents: Latents) -> Float[Array, ""]:
    """Returns the mean of a loss over the masks."""
    return jnp.stack([value(view) for view in latents.views]).mean()


def mean_where(x_BxSxR: Float[Array, "B S R"], valid_BxS: Bool[Array, "B S"]) -> Float[Array, ""]:
    """Returns the mean over valid tokens and their channels; 0 if no token is valid."""
    count = jnp.maximum(valid_BxS.sum(), 1) * x_BxSxR.shape[-1]
    return jnp.where(valid_BxS[..., None], x_BxSxR, 0.0).sum() / count
