"""The speed of this machine, which the benchmarks print beside their figures."""

import time

import jax
import jax.numpy as jnp
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


def describe() -> str:
    """One line about the device: its name and the rate of its matrix products in float32."""
    device = jax.devices()[0]
    return f"{device.device_kind}: {matrix_product_rate() / 1e9:.0f} GFLOP/s in float32 matrix products of 2048³"
