"""The training step on the devices at hand, with attention as XLA compiles it and in one kernel, side by side.

    python benchmarks/accelerator.py [--config configs/ucf101.py] [--remat dots] [--batch 32] [--rounds 30]

Clips a second, model FLOPs a second against the peak of matrix products measured on the same devices (bfloat16,
--matmul on a side), and the memory that the compiler asks for on each. Batches are random numbers that lie on the
devices: nothing is loaded. All steps are compiled first, then run in turn, one of each a round.
"""

import argparse
import dataclasses
import functools
import importlib.util
import statistics
import time
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.compiling import flops
from jepa_jax.config import Attention, Config, Remat, parse
from jepa_jax.training import sharding, step

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ucf101.py")
    parser.add_argument("--remat", choices=typing.get_args(Remat), help="in place of the config's")
    parser.add_argument("--batch", type=int, help="clips on all devices, in place of the config's")
    parser.add_argument("--size", help="of the encoder, in place of the config's")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--matmul", type=int, default=8192)
    arguments = parser.parse_args()
    config = load(arguments.config)
    changes = {"remat": arguments.remat, "size": arguments.size}
    encoder = dataclasses.replace(config.encoder, **{name: value for name, value in changes.items() if value})
    config = dataclasses.replace(config, encoder=encoder, batch_size=arguments.batch or config.batch_size)

    devices = jax.devices()
    peak = len(devices) * matmul_peak(arguments.matmul)
    print(f"{len(devices)} × {devices[0].device_kind}: {peak / 1e12:.4g} TFLOP/s in bfloat16 products, measured")
    print(f"encoder {encoder.size}, batch {config.batch_size}, {config.dtype}, remat {encoder.remat}")
    kinds: tuple[Attention, ...] = typing.get_args(Attention)
    steps = [prepare(with_attention(config, kind)) for kind in kinds]
    seconds: list[list[float]] = [[] for _ in kinds]
    for number in range(arguments.rounds + 2):
        for times, (run, _) in zip(seconds, steps, strict=True):
            taken = run()
            if number >= 2:
                times.append(taken)
    titles = ("attention", "seconds a step (quartiles)", "clips/s", "of measured peak", "GiB a device", "× xla")
    print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for kind, times, (_, memory) in zip(kinds, seconds, steps, strict=True):
        low, median, high = statistics.quantiles(times, n=4)
        ratio = statistics.median(base / own for base, own in zip(seconds[0], times, strict=True))
        share = flops.model_flops(config) / median / peak
        print(
            f"| {kind} | {median:.4f} ({low:.4f}–{high:.4f}) | {config.batch_size / median:.1f} | {share:.0%} | "
            f"{memory / GIB:.2f} | {ratio:.2f} |"
        )


def load(path: str) -> Config:
    spec = importlib.util.spec_from_file_location("config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return parse(Config, module.get_config())


def with_attention(config: Config, kind: Attention) -> Config:
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, attention=kind))


def matmul_peak(side: int, rounds: int = 20) -> float:
    """FLOPs a second of one device in its fastest product of square matrices."""
    a, b = (jax.random.normal(key, (side, side), jnp.bfloat16) for key in jax.random.split(jax.random.key(0)))
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()
    fastest = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        product(a, b).block_until_ready()
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * side**3 / fastest


def prepare(config: Config) -> tuple[Callable[[], float], int]:
    """A function that runs a step and says how many seconds it took; and bytes of memory on each device."""
    mesh = sharding.make_mesh(config.mesh, config.batch_size, jax.devices())
    learner = step.build_learner(config)
    init = functools.partial(step.init_state, learner)
    shardings = sharding.state_shardings(jax.eval_shape(init, config.seed), mesh)
    state = jax.jit(init, out_shardings=shardings)(config.seed)
    clip = config.clip
    shape = (config.batch_size, clip.frames, clip.size, clip.size, 3)
    video = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batch = {"video": jax.device_put(video, sharding.batch_sharding(mesh))}
    compiled: Any = step.jitted(learner, shardings, mesh).lower(state, batch).compile()  # pyright: ignore
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
