"""What an objective is, and what it gets to see."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float

Params = Any  # nested dict of arrays
ArrayLeaf = Any  # a jax.Array; while a pytree is taken apart, whatever jax puts in its place
Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """One mask's view of the batch: what was seen, and what was made of it."""

    context_index_BxK: ArrayLeaf  # int32 positions, time-major
    target_index_BxM: ArrayLeaf
    context_BxKxD: ArrayLeaf  # online encoder, all levels, not normalised
    predicted_target_BxMxD: ArrayLeaf
    predicted_context_BxKxD: ArrayLeaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Latents:
    """All that objectives see of a step: never the model, never the encoders' inputs but as a mean colour a token."""

    views: tuple[View, ...]
    target_BxNxD: ArrayLeaf  # each level normalised; no gradient unless EMA is off
    colour_BxNxC: ArrayLeaf  # mean normalised RGB of a token's pixels
    grid: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    levels: int = dataclasses.field(metadata={"static": True})  # D is this many equal parts, end to end


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moment:
    """When in the run this step is, and a key of its own."""

    step: ArrayLeaf  # int32 scalar, 0-based
    key: ArrayLeaf
    steps: int = dataclasses.field(metadata={"static": True})  # the run's length

    @property
    def progress(self) -> jax.Array:
        """Share of the run done, in [0, 1]."""
        return self.step / self.steps


@dataclasses.dataclass(frozen=True)
class Dims:
    """Sizes a head may need."""

    features: int  # D
    levels: int  # D is this many equal parts, end to end
    colours: int = 3


@runtime_checkable
class Objective(Protocol):
    """A frozen dataclass of settings with these two methods and a coefficient; 0 leaves the objective out."""

    @property
    def coefficient(self) -> float:
        """Its weight in the loss."""
        ...

    def init(self, key: jax.Array, dims: Dims) -> Params:
        """Parameters of the objective's head ({} without one)."""
        ...

    def __call__(self, head: Params, latents: Latents, moment: Moment) -> tuple[Float[Array, ""], Metrics]:
        """The loss, coefficient included, and what else to log."""
        ...


def total_loss(
    objectives: Mapping[str, Objective], heads: Mapping[str, Params], latents: Latents, moment: Moment
) -> tuple[Float[Array, ""], Metrics]:
    """The sum of all objectives, and metrics `loss/NAME` and `NAME/…`."""
    total, metrics = jax.numpy.zeros(()), {}
    for name, objective in objectives.items():
        loss, extra = objective(heads[name], latents, moment)
        total += loss
        metrics[f"loss/{name}"] = loss
        metrics |= {f"{name}/{key}": value for key, value in extra.items()}
    return total, metrics
