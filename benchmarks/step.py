"""Seconds per training step on this machine, at a size for which the study's PyTorch step was measured.

    python benchmarks/step.py [--steps 20]

ViT width 192, depth 12, 3 heads; predictor width 96, depth 8, 3 heads; clips 8×112×112, batch 8, float32, masks
truncated as in the study (budget "truncated"); blocks scanned and unrolled. Prints the step's share of the machine's
matrix-product rate, which is measured before and after the steps in the same process.
"""

import argparse
import functools
import statistics
import time

import jax
import machine
import numpy as np
import table

from jepa_jax.cli import command_line
from jepa_jax.config import Config
from jepa_jax.settings import parse
from jepa_jax.training import step
from jepa_jax.training.setup import build_setup, init_state

FLOP = 59.8e9  # of one step, counted by benchmarks/objectives.py
CONFIG = {
    "steps": 30_000,
    "batch_size": 8,
    "dtype": "float32",
    "clip": {"frames": 8, "size": 112},
    "encoder": {"size": "192x12x3"},
    "predictor": {"size": "96x8x3"},
    "masks": {"short": {"budget": "truncated"}, "long": {"blocks": 2, "spatial_scale": 0.7, "budget": "truncated"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    command_line.reuse_memory()
    caption = machine.describe("flax", "optax")
    ways = {"blocks scanned (the default)": True, "blocks unrolled": False}
    rows = [(name, *measure(scan, arguments.steps)) for name, scan in ways.items()]
    titles = ("", "seconds a step (quartiles)", "of the matrix products before and after", "seconds to compile")
    table.show(titles, rows, caption)


def measure(scan: bool, steps: int) -> tuple[str, str, str]:
    """The seconds of a step, its share of the machine's matrix-product rate, and the seconds of its compilation."""
    setup = build_setup(parse(Config, CONFIG | {"encoder": {**CONFIG["encoder"], "scan": scan}}))
    state = jax.jit(functools.partial(init_state, setup))(0)
    video = np.random.default_rng(0).integers(0, 256, (8, 8, 112, 112, 3), dtype=np.uint8)
    start = time.perf_counter()
    compiled = (
        jax.jit(functools.partial(step.train_step, setup), donate_argnums=0).lower(state, {"video": video}).compile()
    )
    compilation = time.perf_counter() - start
    rates = [machine.matrix_product_rate()]
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        state, metrics = compiled(state, {"video": video})
        jax.block_until_ready(metrics["loss"])
        seconds.append(time.perf_counter() - start)
    rates.append(machine.matrix_product_rate())
    low, median, high = statistics.quantiles(seconds, n=4)
    before, after = (f"{rate / 1e9:.0f}" for rate in rates)
    share = f"{FLOP / median / max(rates):.0%} of {before} and {after} GFLOP/s"
    return f"{median:.3f} ({low:.3f}–{high:.3f})", share, f"{compilation:.1f}"


if __name__ == "__main__":
    main()
