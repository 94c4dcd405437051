"""Where arrays live: the batch split over all devices, large parameters over `fsdp`."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jepa_jax.config import ConfigError, MeshConfig

LARGE = 2**16  # entries from which on a matrix is worth splitting
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(config: MeshConfig, batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A ("data", "fsdp") mesh over all devices, or over those given (which need not exist).

    Raises:
        ConfigError: the axes do not multiply to the number of devices, or do not divide the batch.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    data = count // max(config.fsdp, 1) if config.data == -1 else config.data
    if config.fsdp < 1 or data * config.fsdp != count:
        raise ConfigError(
            f"config.mesh is data {config.data} × fsdp {config.fsdp}, which does not make the {count} devices that "
            "are here; data = -1 takes all that fsdp leaves, and fsdp must divide their number."
        )
    if batch_size % count:
        raise ConfigError(f"config.batch_size is {batch_size}, not a multiple of the {count} devices.")
    return jax.make_mesh((data, config.fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
    """A sharding for each leaf: large matrices split over `fsdp` along their largest divisible dimension."""
    ways = mesh.shape["fsdp"]

    def rule(path: Any, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        if ways == 1 or leaf.ndim < 2 or math.prod(leaf.shape) < LARGE:
            return replicated(mesh)
        divisible = [axis for axis in range(leaf.ndim) if leaf.shape[axis] % ways == 0]
        if not divisible:
            logging.warning(
                "%s %s stays whole: no side is divisible by %d", jax.tree_util.keystr(path), leaf.shape, ways
            )
            return replicated(mesh)
        axis = max(divisible, key=lambda a: leaf.shape[a])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree_util.tree_map_with_path(rule, abstract)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Clips split over all devices."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of the global batch that this process's devices hold, ascending."""
    index = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for (rows,) in index.values() for row in range(batch_size)[rows]})  # pyright: ignore


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch, as global arrays."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
