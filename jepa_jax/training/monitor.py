"""Logging and saving of a run: metrics, progress, checkpoints, and the checks that stop it early."""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from jepa_jax import data
from jepa_jax.checkpoints.manager import Checkpointer
from jepa_jax.config import RunConfig
from jepa_jax.distributed import processes
from jepa_jax.files.write_errors import WriteError, while_writing
from jepa_jax.progress import Progress
from jepa_jax.run_dir import run_lock
from jepa_jax.run_dir.local_mirror import LocalMirror
from jepa_jax.settings import ConfigError, to_dict
from jepa_jax.training import audit, collapse
from jepa_jax.training.metrics import MetricsWriter, metrics_file
from jepa_jax.training.setup import TrainState
from jepa_jax.training.tracking import step_pictures
from jepa_jax.training.tracking.wandb_writer import WandbWriter


class NonFiniteLossError(RuntimeError):
    """The loss or the state is NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """The steps to trace.

    Attributes:
        first: the first traced step (1-based).
        steps: number of traced steps.
    """

    first: int
    steps: int

    @classmethod
    def parse(cls, text: str) -> "Profile":
        """Parses STEP:STEPS.

        Raises:
            ConfigError: the text has another form.
        """
        if not re.fullmatch(r"0*[1-9]\d*:0*[1-9]\d*", text):
            raise ConfigError(
                f"--profile is {text!r}; expected STEP:STEPS, the first step to trace and the number of steps, both at "
                "least 1, as in 100:5."
            )
        first, _, steps = text.partition(":")
        return cls(int(first), int(steps))

    def require_within(self, start: int, steps: int) -> None:
        """Raises ConfigError unless a run from `start` to `steps` includes the first traced step."""
        if not start < self.first <= steps:
            raise ConfigError(
                f"--profile={self.first}:{self.steps} starts at step {self.first}, but this run trains steps "
                f"{start + 1} to {steps}; choose one of these."
            )


@dataclasses.dataclass(frozen=True)
class Pending:
    """Metrics of a step that have not been read from the device yet."""

    step: int
    metrics: dict[str, Any]
    source: jax.Array
    item: jax.Array
    prefix: str  # of the metric names; "images/" for steps on single frames
    pictures: dict[str, Any] | None = None  # from `step_pictures.picture_inputs`


class Monitor:
    """Logs and saves a run: metrics, progress, checkpoints and the reason for an early stop.

    Attributes:
        first_step: number of steps done before this start.
        pending: metrics of the last step, until `read_pending`.
        folder: a local folder for files of the run (see `LocalMirror`).
        ledger: record of files that cannot be decoded.
        throughput: of the input pipeline.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: epath.Path,
        lock: run_lock.RunLock,
        checkpointer: Checkpointer,
        opened: Sequence[data.Source | None],
        step: int,
    ):
        """Opens the files of a run that has done `step` steps."""
        self.config, self.first_step = config, step
        self.pending: Pending | None = None
        self._folder, self._lock, self._checkpointer = folder, lock, checkpointer
        lock.saved = checkpointer.last_good
        main = processes.is_main()
        own = metrics_file(jax.process_index())
        self._mirror = LocalMirror(folder, *([own, "skipped.jsonl"] if main else [own]))
        self.folder = self._mirror.folder
        wandb = None
        if main and config.log.wandb:
            wandb = WandbWriter(config.log.wandb, str(folder), self._mirror.folder, to_dict(config))
        self._writer = MetricsWriter(self._mirror.folder, step, jax.process_index(), wandb)
        self.ledger = data.new_ledger(config.data, opened, self._mirror.folder / "skipped.jsonl" if main else None)
        self.throughput = data.Throughput(config.data.workers, os.cpu_count() or 1)
        self._progress = Progress(config.steps, "step", done=step, clips_each=config.batch_size, shown=main)
        self._alarmed = self._audited = self._unwritable = False
        self._saving: int | None = None
        self._all_finite = jax.jit(_all_finite)

    def device_idle(self) -> bool:
        """Whether the device has finished the last step."""
        return self.pending is None or self.pending.metrics["loss"].is_ready()

    def read_pending(self) -> None:
        """Reads the metrics of the last step, checks that they are finite, displays and writes them."""
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        features = pending.metrics.pop("features", {})  # fine-tuning has none
        scalars = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
        if not all(map(math.isfinite, scalars.values())):
            self._stop_non_finite(pending, [name for name, value in scalars.items() if not math.isfinite(value)])
        log, now = self.config.log, pending.step
        audited = any(name.startswith("audit/") for name in scalars)
        if audited and not self._audited:
            self._audited = True
            for name in audit.without_gradient(scalars):
                self._progress.say(
                    f"Step {now}: objective {name!r} has a loss but no gradient on the encoder, so it does not train "
                    "the encoder."
                )
        self._progress.update(now, f"loss {scalars['loss']:.4f}, lr {scalars['learning_rate']:.2e}")
        if now % log.features_every == 0 or now == self.config.steps:
            measures = collapse.measure({name: np.asarray(value) for name, value in features.items()})
            scalars |= measures
            message = collapse.alarm(measures, self.config)
            if message and not self._alarmed:
                self._alarmed = True
                self._progress.say(f"Step {now}: {message}")
        if message := self.throughput.bottleneck_warning():
            self._progress.say(f"Step {now}: {message}")
        if audited or now % log.every == 0 or now % log.features_every == 0 or now == self.config.steps:
            named = {pending.prefix + name: value for name, value in scalars.items()}
            speed = {"clips_per_second": self._progress.clips_per_second}
            with self._writing(f"the metrics of step {now}"):
                self._writer.write(now, named | speed | self.throughput.metrics())

        if pending.pictures is not None and processes.is_main():
            drawn = step_pictures.draw(step_pictures.read(pending.pictures), now)
            with self._writing(f"the pictures of step {now}"):
                self._writer.write_images(now, {pending.prefix + name: image for name, image in drawn.items()})

    def save(self, step: int, state: TrainState) -> None:
        """Publishes the metrics so far and starts saving the state.

        Raises:
            NonFiniteLossError: the state contains NaN or infinity.
        """
        if not self._all_finite(state):
            raise NonFiniteLossError(
                f"The state after step {step} contains NaN or infinity and was not saved. {self._last_good()}"
            )
        self._finish_saving()
        with self._writing(f"the checkpoint of step {step}"):
            for skips in processes.gather(self.ledger.pop_unshared()):
                self.ledger.add(skips)
            self.ledger.pop_unshared()
            self._lock.require()
            self._mirror.publish()
            self._checkpointer.save(step, state)
        self._saving = step

    def _finish_saving(self) -> None:
        with self._writing(f"the checkpoint of step {self._saving}"):
            self._checkpointer.wait()

    def report_saved(self) -> None:
        """Displays the checkpoints completed since the last call."""
        self._lock.require_if_suspect()
        with self._writing(f"the checkpoint of step {self._saving}"):
            saved_steps = self._checkpointer.finished()
        for saved in saved_steps:
            self._progress.say(f"Saved step {saved} in {self._folder}.")

    def close(self) -> None:
        """Waits for the save in progress and closes the files."""
        # Report only the first write error.
        repeated = contextlib.suppress(WriteError) if self._unwritable else contextlib.nullcontext()
        with repeated, self._writing("metrics"), contextlib.ExitStack() as files:
            files.callback(lambda: self._mirror.close(publish=self._lock.owns()))
            files.callback(self._writer.close)
            files.callback(self._progress.close)
            self._finish_saving()
            self.report_saved()

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            with while_writing(what, self._folder, self._kept_after_failure):
                yield
        except WriteError:
            self._unwritable = True
            raise

    def _stop_non_finite(self, pending: Pending, names: list[str]) -> None:
        names_of = list(self.config.data.sources)
        rows = multihost_utils.process_allgather((pending.source, pending.item), tiled=True)
        drawn = zip(*(part.tolist() for part in rows), strict=True)
        clips = ", ".join(f"{names_of[source]}:{item}" for source, item in drawn)
        higher_precision = " or --config.dtype=float32" if self.config.dtype != "float32" else ""
        raise NonFiniteLossError(
            f"{', '.join(names)} not finite at step {pending.step} (step {pending.step - 1} was finite). "
            f"{self._last_good()} Clips of that batch (source:item): {clips}. "
            "That step was not saved. To continue from the last checkpoint, add --resume=extend and a lower "
            f"--config.optim.peak_lr{higher_precision}."
        )

    def _last_good(self) -> str:
        self._checkpointer.wait()
        return self._kept()

    def _kept_after_failure(self) -> str:
        # If the save in progress fails too, the last good checkpoint is an earlier one.
        with contextlib.suppress(Exception):
            self._checkpointer.wait()
        return self._kept()

    def _kept(self) -> str:
        last = self._checkpointer.last_good
        return f"The last good checkpoint is step {last}." if last is not None else "There is no checkpoint yet."


def _all_finite(state: TrainState) -> jax.Array:
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()
