"""Compares the training step with XLA attention and with fused attention on this machine's devices.

    python benchmarks/accelerator.py [--config ucf101] [--remat dots] [--batch 32] [--rounds 30]

Reports which of the two `config.encoder.attention=auto` chooses and how far their results differ; then clips/s, model
FLOP/s relative to the measured peak of bfloat16 matrix products (--matmul: their side), and the compiler's memory per
device. Batches are random numbers already on the devices, so loading is not measured. All steps are compiled first;
each round then runs every step once.
"""

import argparse
import dataclasses
import functools
import statistics
import time
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np
import table

from jepa_jax.config import Attention, Config, Remat
from jepa_jax.cost_model import flops
from jepa_jax.distributed import sharding
from jepa_jax.evaluation.frozen_encoder import load_config_file
from jepa_jax.training import step
from jepa_jax.training.setup import build_setup, init_state, resolve_attention

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ucf101")
    parser.add_argument("--remat", choices=typing.get_args(Remat), help="default: the config's")
    parser.add_argument("--batch", type=int, help="global batch size; default: the config's")
    parser.add_argument("--size", help="size of the encoder; default: the config's")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--matmul", type=int, default=8192)
    arguments = parser.parse_args()
    config = load_config_file(arguments.config)
    changes = {"remat": arguments.remat, "size": arguments.size}
    encoder = dataclasses.replace(config.encoder, **{name: value for name, value in changes.items() if value})
    config = dataclasses.replace(config, encoder=encoder, batch_size=arguments.batch or config.batch_size)

    devices = jax.devices()
    peak = len(devices) * machine.matrix_product_rate(arguments.matmul, jnp.bfloat16, rounds=20)
    _, chosen = resolve_attention(build_setup(with_attention(config, "auto")), jax.default_backend())
    caption = (
        f"{machine.describe()} {peak / 1e12:.4g} TFLOP/s in bfloat16 products on all devices. Encoder {encoder.size}, "
        f"batch {config.batch_size}, {config.dtype}, remat {encoder.remat}; attention `auto` is {chosen}."
    )
    kinds: tuple[Attention, ...] = ("xla", "fused")
    steps = [prepare(with_attention(config, kind)) for kind in kinds]
    seconds: list[list[float]] = [[] for _ in kinds]
    for number in range(arguments.rounds + 2):
        for times, (run, _) in zip(seconds, steps, strict=True):
            taken = run()
            if number >= 2:
                times.append(taken)
    rows = []
    for kind, times, (_, memory) in zip(kinds, seconds, steps, strict=True):
        low, median, high = statistics.quantiles(times, n=4)
        ratio = statistics.median(base / own for base, own in zip(seconds[0], times, strict=True))
        share = flops.model_flops(config) / median / peak
        step_s = f"{median:.4f} ({low:.4f}–{high:.4f})"
        rows.append(
            (kind, step_s, f"{config.batch_size / median:.1f}", f"{share:.0%}", f"{memory / GIB:.2f}", f"{ratio:.2f}")
        )
    titles = ("attention", "seconds per step (quartiles)", "clips/s", "of measured peak", "GiB per device", "× xla")
    table.show(titles, rows, caption)


def with_attention(config: Config, kind: Attention) -> Config:
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, attention=kind))


def prepare(config: Config) -> tuple[Callable[[], float], int]:
    """Returns a function that runs a step and returns its seconds, and the bytes of memory per device."""
    mesh = sharding.make_mesh(config.mesh, config.batch_size, jax.devices())
    setup = build_setup(config)
    init = functools.partial(init_state, setup)
    shardings = sharding.state_shardings(jax.eval_shape(init, config.seed), mesh)
    state = jax.jit(init, out_shardings=shardings)(config.seed)
    clip = config.clip
    shape = (config.batch_size, *clip.shape)
    video = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batch = {"video": jax.device_put(video, sharding.batch_sharding(mesh))}
    compiled: Any = step.jitted(setup, shardings, mesh).lower(state, batch).compile()  # pyright: ignore
    analysis = compiled.memory_analysis()
    held = [state]

    def run() -> float:
        start = time.perf_counter()
        state, metrics = compiled(held.pop(), batch)
        jax.block_until_ready(metrics["loss"])
        held.append(state)
        return time.perf_counter() - start

    return run, analysis.argument_size_in_bytes + analysis.temp_size_in_bytes


if __name__ == "__main__":
    main()
