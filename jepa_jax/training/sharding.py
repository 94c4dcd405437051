"""Where arrays live: the batch split over all devices, large parameters over `fsdp`."""

import functools
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jepa_jax.config import ConfigError, MeshConfig

LARGE = 2**16  # entries from which on an array is worth splitting
BATCH = PartitionSpec(("data", "fsdp"))

# Which axis of an array is split over `fsdp`: of the first pattern found in its path, the first axis that divides. The
# same for a parameter, its optimizer moments and its moving average, as their paths end alike. Axes count from the
# end: a scanned stack of blocks has one more in front, which stays whole, as every device works on every block.
RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"/heads/", ()),  # of objectives: small, whole
    (r"/kernel$", (-1, -2)),  # output channels, else input channels
    (r"/(bias|scale|mask_tokens|\w+_modality)$", ()),  # a few channels: whole
)


def make_mesh(config: MeshConfig, batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A ("data", "fsdp") mesh over all devices of all processes, or over those given (which need not exist).

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
    # A side of a TPU's torus may be split between the two: fsdp 8 on 4×4×4 chips, which jax.make_mesh refuses.
    arranged = mesh_utils.create_device_mesh((data, config.fsdp), devices, allow_split_physical_axes=True)
    return Mesh(arranged, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
    """A sharding for each leaf of a state, by `RULES`; what is large and has to stay whole is logged with its size."""
    ways = mesh.shape["fsdp"]
    whole: list[tuple[str, float]] = []

    def place(path: Any, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        if ways == 1 or math.prod(leaf.shape) < LARGE:
            return replicated(mesh)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = axes_to_split(name)
        for axis in axes or ():
            if -axis <= leaf.ndim and leaf.shape[axis] % ways == 0:
                return NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim + axis), "fsdp"))
        size = math.prod(leaf.shape) * leaf.dtype.itemsize / 2**20
        reason = f"{ways} divides none of axes {axes}" if axes else "by rule" if axes == () else "no rule is about it"
        whole.append((f"{name} {leaf.shape}: {size:.2f} MiB, {reason}", size))
        return replicated(mesh)

    shardings = jax.tree_util.tree_map_with_path(place, abstract)
    if whole and jax.process_index() == 0:
        lines, sizes = zip(*whole, strict=True)
        logging.warning("Not split over fsdp, %.2f MiB on every device:\n  %s", sum(sizes), "\n  ".join(lines))
    return shardings


def axes_to_split(name: str) -> tuple[int, ...] | None:
    """Which axes of the array at path `name` may be split, best first; None if no rule is about it."""
    return next((axes for pattern, axes in RULES if re.search(pattern, name)), None)


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, traced where the model sees the mesh and keeps activations split (`models.by_clip`)."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


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
