"""The machine and the software that make a record."""

import time

import jax
import jax.numpy as jnp

from jepa_jax.run_dir import workdir
from jepa_jax.study.run_record import Machine, Software

SIDE = 1024  # of the matrices


def this_machine() -> Machine:
    """JAX's name of the first device, and the speed of a float32 matrix product there (the best of five).

    The product has JAX's default precision, which accelerators may round.
    """
    matrix = jnp.ones((SIDE, SIDE), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return Machine(device=jax.devices()[0].device_kind, matmul_gflops=round(2 * SIDE**3 / min(seconds) / 1e9, 1))


def this_software() -> Software:
    """The versions that a record has."""
    found = workdir.versions()
    return Software(
        jepa_jax=found["jepa_jax"] or "",
        jax=found["jax"] or "",
        python=found["python"],
        commit=found["commit"] or "",
    )
