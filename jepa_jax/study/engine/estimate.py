"""What a study costs, from a measured training step and measured probes."""

import dataclasses
import functools
import math
import time
from typing import Any

import jax
import numpy as np

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.data import TooManySkippedError
from jepa_jax.distributed import sharding
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.settings import ConfigError
from jepa_jax.study.engine.prober import Prober
from jepa_jax.study.plan import Plan, Run
from jepa_jax.training import step
from jepa_jax.training.setup import build_setup, init_state, resolve_attention

STEPS, SECONDS = 20, 20.0  # timed steps: at most so many, and no more once they took so long
RECORD_BYTES = 40_000  # of a run with a few dozen probes
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Measured:
    """Times of one run on this machine, in seconds.

    Attributes:
        start: initial state, tracing and compiling the step (which the compilation cache shortens).
        step: one training step, on clips that are in memory or rendered in the step.
        state_bytes: of a checkpoint.
        probe: probing an encoder during training; None if it could not be measured.
        final_probe: probing the final encoder.
        reason: why the probes could not be measured.
    """

    start: float
    step: float
    state_bytes: int
    probe: float | None = None
    final_probe: float | None = None
    reason: str = ""


def measure(plan: Plan) -> Measured:
    """Times a few training steps of the first recipe, and the probes of an untrained encoder."""
    config = plan.runs[0].config
    timed = measure_step(config)
    try:
        prober, encoder = Prober(plan.study), frozen_encoder.untrained(config)
        seconds = []
        for final in (False, False, True):  # the first reads the clips and compiles
            start = time.perf_counter()
            prober.probe(encoder, 0, config.seed, final=final)
            seconds.append(time.perf_counter() - start)
    except (ConfigError, TooManySkippedError) as error:
        return dataclasses.replace(timed, reason=str(error))
    return dataclasses.replace(timed, probe=seconds[1], final_probe=seconds[2])


def measure_step(config: Config) -> Measured:
    """Times training steps on blank clips; opens no source."""
    started = time.perf_counter()
    mesh = sharding.make_mesh(config.mesh, config.batch_size)
    setup, _ = resolve_attention(build_setup(config), jax.default_backend())
    init = functools.partial(init_state, setup)
    shardings = sharding.state_shardings(jax.eval_shape(init, config.seed), mesh)
    state = jax.jit(init, out_shardings=shardings)(config.seed)
    state_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
    shapes = data.batch_shapes(config).items()
    batch: Any = sharding.put_batch({name: np.zeros(shape.shape, shape.dtype) for name, shape in shapes}, mesh)
    train_step = step.jitted(setup, shardings, mesh)
    state, metrics = jax.block_until_ready(train_step(state, batch))
    start, done = time.perf_counter(), 0
    while done < STEPS and time.perf_counter() - start < SECONDS:
        state, metrics = train_step(state, batch)
        jax.block_until_ready(metrics)
        done += 1
    return Measured(start - started, (time.perf_counter() - start) / done, state_bytes)


def describe(plan: Plan, remaining: list[Run], failed: int, measured: Measured, device: str, jobs: int) -> str:
    """The plan as text: runs, hours and disk.

    Args:
        plan: of the study.
        remaining: runs without a record.
        failed: number of runs that failed.
        measured: times on this machine.
        device: the machine's.
        jobs: processes that share the work; their speed is assumed to be that of one alone.
    """
    study, config = plan.study, plan.runs[0].config
    probes = (len(plan.probed_steps) - 1) * (measured.probe or 0) + (measured.final_probe or 0)
    training = measured.start + config.steps * measured.step
    hours = len(remaining) * (training + probes) / 3600
    kept = len(plan.probed_steps) + config.checkpoint.keep
    copies = len(remaining) * kept if study.keep_checkpoints else min(jobs, len(remaining)) * kept
    disk = copies * measured.state_bytes + len(plan.runs) * RECORD_BYTES
    probing = f"probes not measured: {measured.reason}" if measured.probe is None else f"{probes:.0f} s of probes"
    lines = [f"Study {study.name}: {len(plan.runs)} runs of {config.steps:,} steps of {config.batch_size} clips."]
    width = max(map(len, study.recipes))
    for recipe in study.recipes:
        seeds = plan.seeds_of(recipe)
        kind = "primary" if recipe in study.primary else "secondary"
        lines.append(f"  {recipe:{width}}  {kind:9}  {len(seeds)} seeds ({seeds[0]} to {seeds[-1]})")
    lines += [
        f"Contrasts: {', '.join(f'{recipe} − {reference}' for recipe, reference in study.contrasts) or 'none'}.",
        f"Probes after steps {', '.join(map(str, plan.probed_steps))}, finally with "
        f"{', '.join(f'{share:.0%}' for share in study.label_fractions)} of the labels.",
        f"Done: {len(plan.runs) - len(remaining) - failed}. Failed: {failed}. Remaining: {len(remaining)}.",
        f"Measured with {plan.runs[0].recipe} on {device}: {measured.step:.3f} s per step "
        f"({config.batch_size / measured.step:.1f} clips/s, without reading files), {measured.start:.0f} s to start, "
        f"{probing}.",
        f"A run takes {_duration(training + probes)}; what remains takes {hours:.1f} hours"
        + (f", {hours / jobs:.1f} with {jobs} processes that do not slow each other down." if jobs > 1 else "."),
        f"Disk: {disk / GIB:.2f} GiB at most, {len(plan.runs) * RECORD_BYTES / 1e6:.1f} MB of it for good."
        if not study.keep_checkpoints
        else f"Disk: {disk / GIB:.2f} GiB (checkpoints are kept).",
    ]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{math.floor(seconds / 360) / 10:.1f} h"
