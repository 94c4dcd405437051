"""Accelerator slices by name, as compile targets. The devices need not be present."""

import contextlib
import dataclasses
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from jepa_jax.cost_model.chips import CHIPS, Chip

# Only libtpu's compiler is used: it must not look for TPU hardware, nor lock this host.
COMPILER_ONLY = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
EXPECTED = f"expected {', '.join(CHIPS)} with a shape in chips (v5e:4x4, v5p:2x2x4), or cpu:N"


class TopologyError(ValueError):
    """A topology that cannot be compiled for."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind, one per chip.

    Attributes:
        name: the name passed to `parse_topology`.
        devices: the devices of a mesh.
        chip: peak figures; None for CPUs.
    """

    name: str
    devices: list[Any]
    chip: Chip | None


def parse_topology(name: str) -> Topology:
    """Parses v4, v5e, v5p or v6e with a shape in chips, or cpu:N for N virtual devices.

    Raises:
        TopologyError: an unknown name or shape, libtpu is missing, or JAX already runs with fewer CPU devices.
    """
    kind, _, shape = name.partition(":")
    if kind == "cpu" and re.fullmatch("[1-9][0-9]*", shape):
        return Topology(name, _cpu_devices(int(shape)), None)
    if kind not in CHIPS or not re.fullmatch("[1-9][0-9]*(x[1-9][0-9]*){1,2}", shape):
        raise TopologyError(f"{name!r} is not a topology; {EXPECTED}.")
    sides, chip = [int(side) for side in shape.split("x")], CHIPS[kind]
    if len(sides) > chip.torus or math.prod(sides) > chip.slice:
        raise TopologyError(f"{name}: slices of {kind} have {chip.torus} dimensions and at most {chip.slice} chips.")
    return Topology(name, _tpu_devices(name, sides), chip)


def _cpu_devices(count: int) -> list[Any]:
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # the CPU backend is already initialized
            jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise TopologyError(f"cpu:{count} needs {count} CPU devices; JAX was already initialized with {len(devices)}.")
    return devices[:count]


def _tpu_devices(name: str, sides: list[int]) -> list[Any]:
    for key, value in COMPILER_ONLY.items():
        os.environ.setdefault(key, value)
    host = (*(2 if side % 2 == 0 else 1 for side in sides[:2]), 1)  # 2×2 chips per host, fewer where a side is odd
    options: dict[str, Any] = {"chips_per_host_bounds": host}
    if name.startswith("v4:"):
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device, as on later chips
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except RuntimeError as error:
        if "TPU support not installed" in str(error):
            raise TopologyError(f'{name} needs the TPU compiler, libtpu: pip install "jepa_jax[tpu]".') from error
        raise TopologyError(f"Cannot compile for {name}: {error}") from error
    if len(described.devices) != math.prod(sides):
        raise TopologyError(f"{name} gave {len(described.devices)} devices for {math.prod(sides)} chips.")
    return described.devices
