"""Keeps activations split over the devices of a mesh like the batch. Without a mesh these functions do nothing."""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float


def shard_batch(x_Bx: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """Constrains activations so that each device holds its own clips.

    Without this constraint the compiler splits channels where weights are split over fsdp. It then sends activations
    between devices instead of the weights, which are far smaller.
    """
    clips = _clips()
    return x_Bx if clips is None else jax.lax.with_sharding_constraint(x_Bx, clips)


def per_device(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Makes each device apply a function of arrays [B, …] to its own clips. XLA cannot partition kernels itself."""
    clips = _clips()
    if clips is None:
        return function
    return jax.shard_map(function, in_specs=clips, out_specs=clips, check_vma=False)


def _clips() -> PartitionSpec | None:
    axes = jax.sharding.get_abstract_mesh().axis_names
    found = tuple(axis for axis in ("data", "fsdp") if axis in axes)
    return PartitionSpec(found) if found else None
