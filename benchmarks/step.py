"""Seconds per training step on this machine, at a size for which the study's PyTorch step was measured.

    python benchmarks/step.py [--steps 20]

ViT width 192, depth 12, 3 heads; predictor width 96, depth 8, 3 heads; clips 8×112×112, batch 8, float32, masks
truncated as in the study (budget "truncated"). Prints the step's share of the machine's matrix-product rate, which is
measured before and after the steps in the same process.
"""

import argparse
import functools
import statistics
import time

import jax
import machine
import numpy as np

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
    parser.add_argument("--unrolled", action="store_true", help="unroll the blocks instead of scanning them")
    arguments = parser.parse_args()
    config = CONFIG | {"encoder": {**CONFIG["encoder"], "scan": not arguments.unrolled}}
    setup = build_setup(parse(Config, config))
    state = jax.jit(functools.partial(init_state, setup))(0)
    video = np.random.default_rng(0).integers(0, 256, (8, 8, 112, 112, 3), dtype=np.uint8)
    start = time.perf_counter()
    compiled = (
        jax.jit(functools.partial(step.train_step, setup), donate_argnums=0).lower(state, {"video": video}).compile()
    )
    print(f"compiled in {time.perf_counter() - start:.1f} s")
    print(
        "; ".join(
            f"{name}: K {plan.context}, M {plan.target}"
            for name, plan in zip(setup.config.masks, setup.masks, strict=True)
        )
    )
    rates = [machine.matrix_product_rate()]
    seconds = []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        state, metrics = compiled(state, {"video": video})
        jax.block_until_ready(metrics["loss"])
        seconds.append(time.perf_counter() - start)
    rates.append(machine.matrix_product_rate())
    quartiles = statistics.quantiles(seconds, n=4)
    print(
        f"step: median {quartiles[1]:.3f} s (quartiles {quartiles[0]:.3f}–{quartiles[2]:.3f}), {arguments.steps} steps"
    )
    rate, peak = FLOP / quartiles[1], max(rates)
    print(
        f"{rate / 1e9:.0f} GFLOP/s, {rate / peak:.0%} of the machine's matrix products ({rates[0] / 1e9:.0f} and "
        f"{rates[1] / 1e9:.0f} GFLOP/s in float32, 2048³, before and after)"
    )


if __name__ == "__main__":
    main()
