"""The speed of this machine, which the benchmarks print beside their figures."""

import importlib.metadata
import os
import pathlib
import platform
import re
import time

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import simplejpeg
from jaxtyping import DTypeLike


def matrix_product_rate(side: int = 2048, dtype: DTypeLike = jnp.float32, rounds: int = 10) -> float:
    """Returns the FLOP/s of one device in the fastest of `rounds` products of two square matrices."""
    a, b = (jax.random.normal(key, (side, side), dtype) for key in jax.random.split(jax.random.key(0)))
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()
    fastest = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        product(a, b).block_until_ready()
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * side**3 / fastest


def decode_rate(frames: int = 100) -> float:
    """Returns the JPEG frames of 256×340 that this thread decodes per second of processor time."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 340, 3), np.uint8)
    jpeg = simplejpeg.encode_jpeg(cv2.GaussianBlur(noise, (0, 0), 2), quality=90)
    simplejpeg.decode_jpeg(jpeg, "RGB")
    start = time.process_time()
    for _ in range(frames):
        simplejpeg.decode_jpeg(jpeg, "RGB")
    return frames / (time.process_time() - start)


def describe(*packages: str) -> str:
    """A caption: the devices, the rate of their matrix products, and the versions of Python, jax and `packages`."""
    rate = f"{matrix_product_rate() / 1e9:.0f} GFLOP/s in float32 matrix products of 2048³"
    return f"{_devices()}: {rate}; {_versions('jax', *packages)}."


def describe_core(*packages: str) -> str:
    """As `describe`, with the rate at which one core decodes a fixed frame; call it in the process that measures."""
    rate = f"{decode_rate():,.0f} JPEG frames/s of 256×340 decoded by one core"
    return f"{_processor()}: {rate}; {_versions('simplejpeg', *packages)}."


def _versions(*packages: str) -> str:
    shown = (f"{package} {importlib.metadata.version(package)}" for package in packages)
    return ", ".join([f"Python {platform.python_version()}", *shown])


def _devices() -> str:
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return f"{len(devices)} × {devices[0].device_kind}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} core{'s' * (cores != 1)}"


def _processor() -> str:
    file = pathlib.Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", file.read_text()) if file.exists() else None
    return name[1] if name else platform.processor() or platform.machine()
