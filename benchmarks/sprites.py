"""Sprite clips rendered per second on one core, for both difficulties.

    python benchmarks/sprites.py [--frames 8] [--size 64] [--batch 32] [--repeats 15]

Pins itself to one core, if the system supports it, before JAX starts its threads. Compilation is not measured.
"""

import argparse
import os
import statistics
import time

import one_core
import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    one_core.pin()
    import machine

    caption = machine.describe()
    form = f"clips/s, {arguments.frames}×{arguments.size}×{arguments.size}, batch {arguments.batch}"
    rows = [(difficulty, measure(arguments, difficulty)) for difficulty in ("easy", "standard")]
    table.show(("sprites, one core", f"{form} (quartiles)"), rows, caption)


def measure(arguments: argparse.Namespace, difficulty: str) -> str:
    """The median and the quartiles of clips/s."""
    import jax
    import numpy as np

    from jepa_jax.data import sprites

    spec = sprites.SpriteSpec(arguments.frames, arguments.size, difficulty)
    item = np.arange(arguments.batch, dtype=np.int32)
    jax.block_until_ready(sprites.render(spec, 0, "train", item))
    rates = []
    for repeat in range(1, arguments.repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(sprites.render(spec, 0, "train", item + repeat * arguments.batch))
        rates.append(arguments.batch / (time.perf_counter() - start))
    low, median, high = statistics.quantiles(rates, n=4)
    return f"{median:,.0f} ({low:,.0f}–{high:,.0f})"


if __name__ == "__main__":
    main()
