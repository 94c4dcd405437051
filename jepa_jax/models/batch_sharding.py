"""Where clips lie on a mesh: activations stay split over devices as the batch is. Without a mesh nothing happens."""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float


def shard_batch(x_Bx: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """The same activations, of which each device holds its own clips.

    Left to itself, the compiler splits their channels after weights that are split (fsdp), and sends activations from
    device to device in place of the far smaller weights.
    """
    clips = _clips()
    return x_Bx if clips is None else jax.lax.with_sharding_constraint(x_Bx, clips)


def per_device(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of arrays [B, …], computed by each device on its own clips: for kernels, which XLA cannot split."""
    clips = _clips()
    if clips is None:
        return function
    return jax.shard_map(function, in_specs=clips, out_specs=clips, check_vma=False)


def _clips() -> PartitionSpec | None:
    axes = jax.sharding.get_abstract_mesh().axis_names
    found = tuple(axis for axis in ("data", "fsdp") if axis in axes)
    return PartitionSpec(found) if found else None
