"""A training run from start to end. Only this module and `monitor` touch files, devices, signals and clocks.

The order of operations is fixed: check that the last step is finite, save if due, take the next batch, dispatch the
step. The metrics of a step are read after the next one has been dispatched, so the device never waits for the host.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
from typing import Any

import jax
from etils import epath

from jepa_jax import data
from jepa_jax.checkpoints import initial_weights
from jepa_jax.checkpoints.manager import Checkpointer
from jepa_jax.checkpoints.reader import saved_steps
from jepa_jax.config import RunConfig
from jepa_jax.distributed import processes, sharding
from jepa_jax.distributed.interrupt import StopRequest, stop_on_signal
from jepa_jax.files.write_errors import while_writing
from jepa_jax.run_dir import data_identity, run_lock
from jepa_jax.run_dir.workdir import load_config, open_workdir
from jepa_jax.settings import to_dict
from jepa_jax.training import extension
from jepa_jax.training.jobs import base, jepa
from jepa_jax.training.monitor import Monitor, Pending, Profile
from jepa_jax.training.setup import TrainState


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    stopped_by: str | None = None  # name of the signal that stopped it; None if it finished


def train(
    config: RunConfig,
    workdir: epath.PathLike,
    overwrite: bool = False,
    extend: extension.Schedules | None = None,
    profile: Profile | None = None,
    build: base.Build = jepa.build,
) -> Outcome:
    """Trains until `config.steps`, or until a signal. Collective.

    Args:
        config: of the run.
        workdir: its folder. If it contains a run, that run is resumed.
        overwrite: moves that run aside and starts again.
        extend: accepts more steps and other schedules for that run (see `extension`).
        profile: the steps to trace, to WORKDIR/profile.
        build: makes the job from the config: pretraining, or fine-tuning.

    Raises:
        ConfigError: invalid settings (before anything is written), another run's folder, or processes that were not
            started with the same command, code and data.
        CheckpointError: the checkpoints are of another model, or all are damaged.
        NonFiniteLossError: the loss became NaN or infinite.
        OwnershipError: another process is training in that folder.
        WorkdirLostError: the folder was deleted, replaced or taken over while training.
        TooManySkippedError: too many items of a source cannot be decoded.
        WriteError: the folder cannot be written.
    """
    given = {"workdir": str(workdir), "overwrite": overwrite, "extend": extend, "config": to_dict(config)}
    if not overwrite:
        planned = processes.from_main(lambda: extension.schedule_steps(config, workdir, extend))
        config = dataclasses.replace(config, schedule_steps=planned)
    is_new = overwrite or not processes.from_main(lambda: saved_steps(workdir))
    job = build(config, given, is_new, workdir)
    # From here on, files are written.
    with contextlib.ExitStack() as stack:
        extending = extend is not None
        with while_writing("the settings of the run", workdir, lambda: "Nothing was trained."):
            lock = stack.enter_context(run_lock.held(workdir))
            folder = processes.from_main(lambda: open_workdir(workdir, config, overwrite=overwrite, extend=extending))
        recorded = processes.from_main(lambda: load_config(folder, type(config)))
        changed_data = _check_inputs(job, folder, extending)
        saving = config.checkpoint
        checkpointer = stack.enter_context(Checkpointer(folder, keep=saving.keep, always=saving.at, lock=lock))
        stop = stack.enter_context(stop_on_signal())
        restored = checkpointer.restore(job.abstract)
        start = 0 if restored is None else restored[0]
        _record_changes(job, folder, extension.Extension(start, recorded, config, tuple(changed_data)))
        if start >= config.steps:
            processes.say(
                f"{folder} is already at step {start} of {config.steps}: nothing to do. To train it longer, add "
                "--resume=extend and a larger --config.steps."
            )
            return Outcome(start)
        if profile is not None:
            profile.require_within(start, config.steps)
        if restored is not None:
            processes.say(f"Resuming {folder} at step {start}.")
        processes.say(f"Training on {data.describe(job.sources)}.")
        train_step = _start_compiling(job)
        state = job.init() if restored is None else restored[1]
        monitor = Monitor(config, folder, lock, checkpointer, job.sources, start)
        if job.start is not None:
            _save_start(job.start, folder, monitor, state)
        done = _run(job, monitor, train_step, state, stop, profile)
        processes.from_main(lambda: lock.require(done))
    if stop.received is None:
        return Outcome(done)
    processes.say(f"Stopped by {stop.received.name} at step {done} of {config.steps}, which is saved.")
    if done < config.steps:
        processes.say("Run the same command again to resume.")
    return Outcome(done, stop.received.name)


def _check_inputs(job: base.Job, folder: epath.Path, extending: bool) -> list[str]:
    """Compares the data, and other inputs of the job, with those the run began with. Collective.

    Returns:
        A line for each source whose data changed, which `extending` allows.
    """
    config, check = job.config, job.check_folder
    if check is not None:
        processes.from_main(lambda: check(folder))
    return processes.from_main(lambda: data_identity.require_same(folder, config, job.identities, extend=extending))


def _save_start(start: base.Start, folder: epath.Path, monitor: Monitor, state: TrainState) -> None:
    """Records and saves the initial weights, so that they are never read again. Collective."""
    processes.from_main(lambda: initial_weights.record(folder, start.weights, start.taken, start.fresh))
    processes.say(str(start))
    monitor.save(0, state)


def _start_compiling(job: base.Job) -> base.TrainStep:
    """Returns the training step, which is compiled in a thread until its first call.

    The compiler leaves Python to other threads. The initial state is made and the input pipeline starts meanwhile.
    """
    train_step = job.jit_step()
    split = sharding.batch_sharding(job.mesh)
    batch = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split)
        for name, x in data.batch_shapes(job.config).items()
    }
    lowered = train_step.lower(job.abstract, batch)
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="compile")
    compiled = executor.submit(lowered.compile)
    executor.shutdown(wait=False)

    def call(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        compiled.result()  # JAX keeps the program for this call
        return train_step(state, batch)

    return call


def _record_changes(job: base.Job, folder: epath.Path, change: extension.Extension) -> None:
    """Records and describes what changes when the run is extended, and records its data. Collective."""
    if change.lines:
        processes.say(processes.from_main(lambda: extension.begin(change, folder)))
    processes.from_main(lambda: extension.warn_if_before(folder, change.step))
    processes.from_main(lambda: data_identity.record(folder, job.identities, changed=bool(change.data)))


def _run(
    job: base.Job,
    monitor: Monitor,
    train_step: base.TrainStep,
    state: TrainState,
    stop: StopRequest,
    profile: Profile | None,
) -> int:
    """Trains on the input pipeline; returns the number of updates made, all of them saved."""
    config, mesh = job.config, job.mesh
    batches = data.device_prefetch(
        data.TrainBatches(
            config,
            start_step=monitor.first_step,
            rows=sharding.local_rows(mesh, config.batch_size),
            ledger=monitor.ledger,
            opened=job.sources,
            throughput=monitor.throughput,
        ),
        functools.partial(sharding.put_batch, mesh=mesh),
        config.data.prefetch,
        monitor.throughput,
    )
    try:
        return _iterate(job, monitor, train_step, state, batches, stop, profile)
    finally:
        batches.close()
        monitor.close()


def _iterate(
    job: base.Job,
    monitor: Monitor,
    train_step: base.TrainStep,
    state: TrainState,
    batches: data.DevicePrefetch[dict[str, jax.Array]],
    stop: StopRequest,
    profile: Profile | None,
) -> int:
    """Steps until the end or a signal; returns the number of updates made, all of them saved.

    Implicit transfers between host and device are errors while a step is dispatched.
    """
    config, done = monitor.config, monitor.first_step
    while True:
        batch = batches.take(monitor.device_idle)
        if profile is not None and done + 1 == profile.first:
            jax.profiler.start_trace(str(monitor.folder / "profile"))
        with jax.transfer_guard("disallow"):
            # Before the step, which donates the state.
            observers = job.observers
            audits = {} if observers is None else observers.audit(done, state, batch)
            pictures = None if observers is None else observers.pictures(done, state, batch)
            state, metrics = train_step(state, batch)
        metrics |= audits
        done += 1
        monitor.read_pending()
        images = config.data.images == "frames" and "video" in batch and batch["video"].shape[1] == 1
        monitor.pending = Pending(done, metrics, batch["source"], batch["item"], "images/" if images else "", pictures)
        last = stop.after(done) or done == config.steps
        if profile is not None and profile.first <= done and (last or done == profile.first + profile.steps - 1):
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            profile = None
        if last or done % config.checkpoint.every == 0 or done in config.checkpoint.at:
            monitor.read_pending()
            monitor.save(done, state)
        monitor.report_saved()
        if last:
            return done
