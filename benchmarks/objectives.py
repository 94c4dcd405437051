"""Cost of the objectives in a training step: wall time, FLOPs and peak memory relative to the baseline.

    python benchmarks/objectives.py [--rounds 24] [--recipes fwm_hw_ld,ld] [--without-vit-base]

Wall time at the size of benchmarks/step.py on this machine: all steps are compiled first, then each round runs every
step once; the ratio is the median over rounds. FLOPs are counted in the unrolled program before optimisation, at that
size and for ViT-B (16×224×224, batch 8); peak memory is that of the compiled ViT-B step. ViT-B steps are not run.
"""

import argparse
import functools
import gc
import statistics
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import machine
import numpy as np
import step as sizes  # benchmarks/step.py, beside this file
import table

from jepa_jax import recipes
from jepa_jax.cli import command_line
from jepa_jax.config import Config, defaults
from jepa_jax.settings import parse
from jepa_jax.training import step
from jepa_jax.training.setup import TrainSetup, build_setup, init_state

BASELINE = "baseline"
RECIPES = ("fwm_hw_ld", "ld", "spectral", "sigreg", "hamiltonian")
VIT_BASE = {"steps": 30_000, "batch_size": 8, "encoder": {"remat": "full"}}
UNROLLED = {"encoder": {"scan": False}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24, help="0: skip the wall times")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--without-vit-base", action="store_true", help="skip ViT-B, which takes long to compile")
    arguments = parser.parse_args()
    command_line.reuse_memory()
    caption = machine.describe()
    names = [BASELINE, *arguments.recipes.split(",")]
    columns: dict[str, list[Any]] = {}
    if arguments.rounds:
        columns["seconds"] = wall_times(names, arguments.rounds)
    columns["operations"] = [operations(setup(name, sizes.CONFIG, UNROLLED)) for name in names]
    if not arguments.without_vit_base:
        columns["operations, ViT-B"] = [operations(setup(name, VIT_BASE, UNROLLED)) for name in names]
        columns["peak bytes, ViT-B"] = [peak_memory(setup(name, VIT_BASE)) for name in names]
    rows = [(name, *(cell(values, row) for values in columns.values())) for row, name in enumerate(names)]
    table.show(("recipe", *columns), rows, caption)


def cell(values: list[Any], row: int) -> str:
    """The baseline's value, or the ratio to it; of lists, the median and the median of ratios."""
    value, base = values[row], values[0]
    if isinstance(value, list):
        ratio = statistics.median(a / b for a, b in zip(value, base, strict=True))
        value = statistics.median(value)
    else:
        ratio = value / base
    return f"{ratio:.3f} ×" if row else metric(value)


def metric(value: float) -> str:
    """Four digits of a number, with a prefix if it is large."""
    for size, prefix in ((1e12, " T"), (1e9, " G")):
        if value >= size:
            return f"{value / size:.4g}{prefix}"
    return f"{value:.4g}"


def setup(recipe: str, *changes: dict[str, Any]) -> TrainSetup:
    """The fixed parts of a run of this recipe at a size."""
    config = defaults(Config)
    for change in changes:
        config.update(change)
    return build_setup(parse(Config, recipes.apply(config, recipe)))


def lower(of: TrainSetup) -> Any:
    """The training step, lowered for these shapes."""
    clip, batch = of.config.clip, of.config.batch_size
    state = jax.eval_shape(functools.partial(init_state, of), 0)
    video = jax.ShapeDtypeStruct((batch, *clip.shape), np.uint8)
    return jax.jit(functools.partial(step.train_step, of), donate_argnums=0).lower(state, {"video": video})


def operations(of: TrainSetup) -> float:
    """Floating-point operations of a step."""
    # cost_analysis counts the body of a loop once, so there must be none.
    with mock.patch.object(jax.lax, "scan", functools.partial(jax.lax.scan, unroll=True)):
        return lower(of).cost_analysis()["flops"]


def peak_memory(of: TrainSetup) -> int:
    """Peak bytes of the compiled step: arguments, results that do not reuse their memory, and temporaries."""
    started = time.perf_counter()
    stats = lower(of).compile().memory_analysis()
    table.progress(f"{of.config.recipe}: ViT-B compiled in {time.perf_counter() - started:.0f} s")
    gc.collect()
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return kept + stats.temp_size_in_bytes


def wall_times(names: list[str], rounds: int) -> list[list[float]]:
    """Seconds of each step in each round."""
    timers = [timer(setup(name, sizes.CONFIG)) for name in names]
    for each in timers:
        next(each)
    seconds: list[list[float]] = [[] for _ in names]
    for number in range(rounds):
        order = range(len(names)) if number % 2 else reversed(range(len(names)))
        for i in order:
            seconds[i].append(next(timers[i]))
    return seconds


def timer(of: TrainSetup) -> Iterator[float]:
    """Runs a step per iteration and yields its seconds."""
    state = jax.jit(functools.partial(init_state, of))(0)
    shape = (of.config.batch_size, *of.config.clip.shape)
    batch = {"video": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
    compiled = lower(of).compile()
    while True:
        started = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready(metrics["loss"])
        yield time.perf_counter() - started


if __name__ == "__main__":
    main()
