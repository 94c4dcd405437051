"""Shardings: the batch over all devices, large parameters over `fsdp`."""

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

from jepa_jax.config import MeshConfig
from jepa_jax.settings import ConfigError

LARGE = 2**16  # smallest number of entries that is split over fsdp
BATCH = PartitionSpec(("data", "fsdp"))

# The axes of an array that may be split over `fsdp`: the first pattern that matches its path applies, and the first of
# its axes that `fsdp` divides is split. A parameter, its optimizer moments and its moving average have paths with the
# same end, so they are split alike. Axes count from the end because a scanned stack of blocks has an additional leading
# axis, which is never split: every device computes every block.
RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"/heads/", ()),  # heads of objectives are small
    (r"/kernel$", (-1, -2)),  # output channels, else input channels
    (r"/(bias|scale|mask_tokens|\w+_modality)$", ()),  # a single vector
)


def make_mesh(config: MeshConfig, batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A ("data", "fsdp") mesh over all devices of all processes, or over `devices` (which need not be present).

    Raises:
        ConfigError: the axes do not multiply to the number of devices, or do not divide the batch.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    data = count // max(config.fsdp, 1) if config.data == -1 else config.data
    if config.fsdp < 1 or data * config.fsdp != count:
        raise ConfigError(
            f"config.mesh is data {config.data} × fsdp {config.fsdp}, which does not match the {count} devices; fsdp "
            "must divide their number, and data = -1 uses all that remain."
        )
    if batch_size % count:
        raise ConfigError(f"config.batch_size is {batch_size}, not a multiple of the {count} devices.")
    # fsdp 8 on 4×4×4 chips needs one side of the torus to be split between both axes, which jax.make_mesh rejects.
    arranged = mesh_utils.create_device_mesh((data, config.fsdp), devices, allow_split_physical_axes=True)
    return Mesh(arranged, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
    """A sharding for each array of a state, by `RULES`. Logs large arrays that stay replicated, with their sizes."""
    ways = mesh.shape["fsdp"]
    unsplit: list[tuple[str, float]] = []

    def choose(path: Any, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        if ways == 1 or math.prod(leaf.shape) < LARGE:
            return replicated(mesh)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = axes_to_split(name)
        for axis in axes or ():
            if -axis <= leaf.ndim and leaf.shape[axis] % ways == 0:
                return NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim + axis), "fsdp"))
        size = math.prod(leaf.shape) * leaf.dtype.itemsize / 2**20
        reason = f"{ways} divides none of axes {axes}" if axes else "by rule" if axes == () else "no rule matches"
        unsplit.append((f"{name} {leaf.shape}: {size:.2f} MiB, {reason}", size))
        return replicated(mesh)

    shardings = jax.tree_util.tree_map_with_path(choose, abstract)
    if unsplit and jax.process_index() == 0:
        lines, sizes = zip(*unsplit, strict=True)
        logging.warning("Not split over fsdp, %.2f MiB on every device:\n  %s", sum(sizes), "\n  ".join(lines))
    return shardings


def axes_to_split(name: str) -> tuple[int, ...] | None:
    """Axes along which the array at path `name` may be split, preferred first; None if no rule matches."""
    return next((axes for pattern, axes in RULES if re.search(pattern, name)), None)


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Traces `function` under the mesh, so that the model can constrain activations (`models.batch_sharding`)."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """A sharding of the batch axis over all devices."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """A sharding that replicates arrays on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of the global batch on this process's devices, ascending."""
    index = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for (rows,) in index.values() for row in range(batch_size)[rows]})  # pyright: ignore


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays from this process's rows of a batch."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
