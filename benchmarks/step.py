"""Seconds a training step on this machine, beside the study's PyTorch step of the same size.

    python benchmarks/step.py [--steps 20]

ViT width 192, depth 12, 3 heads; predictor width 96, depth 8, 3 heads; clips 8×112×112, batch 8, float32, the masks cut
as the study cuts them (budget "truncated"). The study's code took 0.63–0.71 s a step on two CPU cores at this size.
"""

import argparse
import functools
import statistics
import time

import jax
import numpy as np

from jepa_jax.config import Config, parse
from jepa_jax.training import step

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
    parser.add_argument("--unrolled", action="store_true", help="blocks unrolled in place of scanned")
    arguments = parser.parse_args()
    config = CONFIG | {"encoder": {**CONFIG["encoder"], "scan": not arguments.unrolled}}
    learner = step.build_learner(parse(Config, config))
    state = jax.jit(functools.partial(step.init_state, learner))(0)
    video = np.random.default_rng(0).integers(0, 256, (8, 8, 112, 112, 3), dtype=np.uint8)
    start = time.perf_counter()
    compiled = (
        jax.jit(functools.partial(step.train_step, learner), donate_argnums=0).lower(state, {"video": video}).compile()
    )
    print(f"compiled in {time.perf_counter() - start:.1f} s")
    print(
        "; ".join(f"{m.config.blocks} × {m.config.spatial_scale}: K {m.context}, M {m.target}" for m in learner.masks)
    )
    seconds = []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        state, metrics = compiled(state, {"video": video})
        jax.block_until_ready(metrics["loss"])
        seconds.append(time.perf_counter() - start)
    quartiles = statistics.quantiles(seconds, n=4)
    print(
        f"step: median {quartiles[1]:.3f} s (quartiles {quartiles[0]:.3f}–{quartiles[2]:.3f}), {arguments.steps} steps"
    )


if __name__ == "__main__":
    main()
