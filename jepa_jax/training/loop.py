"""A training run from start to end: the only place of training that touches files, devices, signals and clocks.

Order within a step is a contract: check finite → save → next batch → step. The metrics of a step are read after the
next one has been dispatched, so the device never waits for the host.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from jepa_jax import data
from jepa_jax.config import Config, to_dict
from jepa_jax.progress import Progress
from jepa_jax.training import audit, collapse, processes, sharding, step
from jepa_jax.training.checkpoint import Checkpointer
from jepa_jax.training.interrupt import StopRequest, stop_on_signal
from jepa_jax.training.metrics import MetricsWriter, metrics_file
from jepa_jax.training.spool import Spool
from jepa_jax.training.state import TrainState
from jepa_jax.training.workdir import open_workdir, versions


class NonFiniteLossError(RuntimeError):
    """The loss or the state is NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    stopped_by: str | None = None  # the name of a signal, if one came


def train(config: Config, workdir: epath.PathLike, overwrite: bool = False) -> Outcome:
    """Trains until `config.steps`, or until a signal; goes on with what `workdir` holds, or moves it aside first.

    With several processes all of them call this with the same arguments.

    Raises:
        ConfigError: settings that cannot be used, before anything is written, another run's folder, or processes that
            were not started alike.
        CheckpointError: checkpoints of another model, or none that is whole.
        NonFiniteLossError: the loss became NaN or infinite.
        TooManySkippedError: too much of a source cannot be decoded.
    """
    mesh = sharding.make_mesh(config.mesh, config.batch_size)
    opened = data.open_sources(config.data)
    learner = step.build_learner(config)
    init = functools.partial(step.init_state, learner)
    abstract = jax.eval_shape(init, config.seed)
    started = {"workdir": str(workdir), "overwrite": overwrite, "data": data.describe(opened), "versions": versions()}
    processes.require_same(started | {"config": to_dict(config)})
    # From here on, files are written.
    folder = processes.from_main(lambda: open_workdir(workdir, config, overwrite=overwrite))
    shardings = sharding.state_shardings(abstract, mesh)
    with Checkpointer(folder, keep=config.checkpoint.keep) as checkpointer, stop_on_signal() as stop:
        restored = checkpointer.restore(
            jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
        )
        if restored is None:
            start, state = 0, jax.jit(init, out_shardings=shardings)(config.seed)
        else:
            start, state = restored
        if start >= config.steps:
            processes.say(f"{folder} is already at step {start} of {config.steps}: nothing to do.")
            return Outcome(start)
        if restored is not None:
            processes.say(f"Resuming {folder} at step {start}.")
        processes.say(f"Training on {data.describe(opened)}.")

        run = _Run(config, folder, checkpointer, opened, start)
        batches = data.device_prefetch(
            data.TrainBatches(
                config,
                start_step=start,
                rows=sharding.local_rows(mesh, config.batch_size),
                ledger=run.ledger,
                opened=opened,
                throughput=run.throughput,
            ),
            functools.partial(sharding.put_batch, mesh=mesh),
            config.data.prefetch,
            run.throughput,
        )
        try:
            train_step = step.jitted(learner, shardings, mesh)
            audited = jax.jit(
                sharding.on_mesh(mesh, functools.partial(audit.audit, learner)),
                out_shardings=sharding.replicated(mesh),
            )
            done = _iterate(run, train_step, audited, state, batches, stop)
        finally:
            batches.close()
            run.close()
    if stop.received is None:
        return Outcome(done)
    processes.say(f"Stopped by {stop.received.name} at step {done} of {config.steps}, which is saved.")
    if done < config.steps:
        processes.say("To go on, give the same command again.")
    return Outcome(done, stop.received.name)


def _iterate(
    run: "_Run",
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    audited: Callable[[TrainState, Any], dict[str, jax.Array]],
    state: TrainState,
    batches: data.DevicePrefetch[dict[str, jax.Array]],
    stop: StopRequest,
) -> int:
    """Steps until the end or a signal; returns the number of updates made, all of them saved."""
    config, done = run.config, run.first_step
    while True:
        batch = batches.take(run.device_idle)
        # Before the step, which takes the state's memory over.
        findings = audited(state, batch) if config.audit.every and done % config.audit.every == 0 else {}
        state, metrics = train_step(state, batch)
        metrics |= findings
        done += 1
        run.read_pending()
        images = config.data.images == "frames" and batch["video"].shape[1] == 1
        run.pending = _Pending(done, metrics, batch["source"], batch["item"], "images/" if images else "")
        last = stop.after(done) or done == config.steps
        if last or done % config.checkpoint.every == 0:
            run.read_pending()
            run.save(done, state)
        run.report_saved()
        if last:
            return done


@dataclasses.dataclass(frozen=True)
class _Pending:
    """Metrics of an update that have not been read from the device."""

    step: int
    metrics: dict[str, Any]
    source: jax.Array
    item: jax.Array
    prefix: str  # of the names of metrics: steps of single frames have their own


class _Run:
    """What a run tells: metrics, progress, checkpoints saved, and why it stopped."""

    def __init__(
        self,
        config: Config,
        folder: epath.Path,
        checkpointer: Checkpointer,
        opened: Sequence[data.Source | None],
        step: int,
    ):
        self.config, self.first_step = config, step
        self.pending: _Pending | None = None
        self._folder, self._checkpointer = folder, checkpointer
        main = processes.is_main()
        own = metrics_file(jax.process_index())
        self._spool = Spool(folder, *([own, "skipped.jsonl"] if main else [own]))
        self._writer = MetricsWriter(self._spool.folder, step, jax.process_index())
        self.ledger = data.new_ledger(config.data, opened, self._spool.folder / "skipped.jsonl" if main else None)
        self.throughput = data.Throughput(config.data.workers, os.cpu_count() or 1)
        self._progress = Progress(config.steps, "step", done=step, clips_each=config.batch_size, shown=main)
        self._alarmed = self._audited = False
        self._all_finite = jax.jit(_all_finite)

    def device_idle(self) -> bool:
        """Whether the device has done all it was given."""
        return self.pending is None or self.pending.metrics["loss"].is_ready()

    def read_pending(self) -> None:
        """Reads the last update's metrics: checks that they are finite, shows and writes them."""
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        features = pending.metrics.pop("features")
        scalars = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
        if not all(map(math.isfinite, scalars.values())):
            self._stop_non_finite(pending, [name for name, value in scalars.items() if not math.isfinite(value)])
        log, now = self.config.log, pending.step
        audited = any(name.startswith("audit/") for name in scalars)
        if audited and not self._audited:
            self._audited = True
            for name in audit.without_gradient(scalars):
                self._progress.say(
                    f"Step {now}: objective {name!r} has a loss and no gradient on the encoder: the encoder learns "
                    "nothing from it."
                )
        self._progress.update(now, f"loss {scalars['loss']:.4f}, lr {scalars['learning_rate']:.2e}")
        if now % log.features_every == 0 or now == self.config.steps:
            measures = collapse.measure({name: np.asarray(value) for name, value in features.items()})
            scalars |= measures
            message = collapse.alarm(measures)
            if message and not self._alarmed:
                self._alarmed = True
                self._progress.say(f"Step {now}: {message}")
        if message := self.throughput.complaint():
            self._progress.say(f"Step {now}: {message}")
        if audited or now % log.every == 0 or now % log.features_every == 0 or now == self.config.steps:
            named = {pending.prefix + name: value for name, value in scalars.items()}
            speed = {"clips_per_second": self._progress.clips_per_second}
            self._writer.write(now, named | speed | self.throughput.metrics())

    def save(self, step: int, state: TrainState) -> None:
        """Starts saving the state, if all of it is finite, after what has been told of the steps up to it."""
        if not self._all_finite(state):
            raise NonFiniteLossError(
                f"The state after step {step} holds values that are not finite; it is not saved. {self._last_good()}"
            )
        for skips in processes.gather(self.ledger.take_unshared()):
            self.ledger.add(skips)
        self.ledger.take_unshared()
        self._spool.publish()
        self._checkpointer.save(step, state)

    def report_saved(self) -> None:
        """Says which checkpoints have been completed since the last call."""
        for saved in self._checkpointer.finished():
            self._progress.say(f"Saved step {saved} in {self._folder}.")

    def close(self) -> None:
        """Completes what is being saved and closes the files."""
        try:
            self._checkpointer.wait()
            self.report_saved()
        finally:
            self._progress.close()
            self._writer.close()
            self._spool.close()

    def _stop_non_finite(self, pending: _Pending, names: list[str]) -> None:
        names_of = list(self.config.data.sources)
        rows = multihost_utils.process_allgather((pending.source, pending.item), tiled=True)
        drawn = zip(*(part.tolist() for part in rows), strict=True)
        clips = ", ".join(f"{names_of[source]}:{item}" for source, item in drawn)
        raise NonFiniteLossError(
            f"{', '.join(names)} not finite at step {pending.step} (step {pending.step - 1} was finite). "
            f"{self._last_good()} Clips of that batch (source:item): {clips}. "
            "Nothing of it was saved. Try a lower --config.optim.peak_lr or --config.dtype=float32."
        )

    def _last_good(self) -> str:
        self._checkpointer.wait()
        last = self._checkpointer.last_good
        return f"The last good checkpoint is step {last}." if last is not None else "There is no checkpoint yet."


def _all_finite(state: TrainState) -> jax.Array:
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()
