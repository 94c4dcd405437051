"""A process that works on a study until every run has a record. Any number of them share one folder.

DIR/results    records (see `run_record`)
DIR/runs       checkpoints and metrics of runs that have not ended, RECIPE/SEED
DIR/claims     which process works on what
"""

import contextlib
import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Iterator

from etils import epath

from jepa_jax.files import allocator, ownership
from jepa_jax.files.write_errors import WriteError
from jepa_jax.run_dir.run_lock import WorkdirLostError
from jepa_jax.study import results_folder
from jepa_jax.study.engine.claims import Claims
from jepa_jax.study.engine.runner import Runner, StoppedError
from jepa_jax.study.plan import Plan, Run
from jepa_jax.study.run_record import CONTROLS, ControlsRecord

RESULTS, RUNS, CLAIMS = "results", "runs", "claims"
POLL_S = 2.0  # between looks for work while other processes work on the rest

# Errors of the disk or of another process, not of the run: it is left for a later start.
_NOT_OF_THE_RUN = (ownership.OwnershipError, WorkdirLostError, WriteError, OSError)


@dataclasses.dataclass(frozen=True)
class Worker:
    """Works on a study.

    Attributes:
        plan: of the study.
        folder: of the study, shared by all workers.
        runner: trains and probes runs.
        sleep: waits for this many seconds.
    """

    plan: Plan
    folder: epath.Path
    runner: Runner
    sleep: Callable[[float], object] = time.sleep

    @property
    def results(self) -> epath.Path:
        """The folder of records."""
        return self.folder / RESULTS

    def work(self) -> None:
        """Works until every run has a record and the controls are probed. Runs that fail get a record with the error.

        Raises:
            StoppedError: a signal stopped the training of a run.
            Exception: an error that is not of a run (a full disk, a folder that was deleted).
        """
        claims = Claims(self.folder / CLAIMS)
        while remaining := list(self.remaining()):
            worked = False
            for part in remaining:
                lock = claims.take("controls" if part is None else part.name)
                if lock is None:
                    continue
                with _released(lock):
                    if not self._has_record(part):
                        self._do(part, lock)
                worked = True
                # Programs of different recipes differ in what they allocate: what is kept would grow with each.
                allocator.release_freed_memory()
            if not worked:
                self.sleep(POLL_S)
        if not self.plan.study.keep_checkpoints:
            self._tidy_up(claims)

    def _tidy_up(self, claims: Claims) -> None:
        """Deletes checkpoints of runs that were killed after they had written their record."""
        for run in self.plan.runs:
            workdir = self.runner.workdir(run)
            if workdir.exists() and results_folder.read_run(self._file(run)).status == "done":
                lock = claims.take(run.name)  # otherwise another process deletes it
                if lock is not None:
                    with _released(lock):
                        _delete(workdir)

    def remaining(self) -> Iterator[Run | None]:
        """The parts without a record: the controls (None), then runs in order."""
        if not (self.results / CONTROLS).exists():
            yield None
        ended = set(results_folder.run_files(self.results))
        yield from (run for run in self.plan.runs if self._file(run) not in ended)

    def _file(self, run: Run) -> epath.Path:
        return results_folder.run_file(self.results, run.recipe, run.seed)

    def _has_record(self, part: Run | None) -> bool:
        return (self.results / CONTROLS if part is None else self._file(part)).exists()

    def _do(self, part: Run | None, lock: ownership.Lock) -> None:
        """Makes the record of one part, unless the claim was lost meanwhile."""
        try:
            if part is None:
                self._probe_controls(lock)
            else:
                self._run(part, lock)
        except ownership.LostError as error:
            print(f"{error} Its new owner makes this record.", file=sys.stderr)

    def _probe_controls(self, lock: ownership.Lock) -> None:
        print("Probing the controls.", flush=True)
        prober, run = self.runner.prober, self.plan.runs[0]
        probed = prober.probe_controls(run.config)
        record = ControlsRecord(
            study=self.plan.study.name,
            settings_sha256=self.plan.controls_sha256,
            software=self.runner.software,
            machine=self.runner.machine,
            labels=prober.labels,
            accuracies=tuple(row for found in probed.values() for row in found.accuracies),
            representation={name: found.representation for name, found in probed.items() if found.representation},
        )
        lock.check()
        results_folder.write(self.results / CONTROLS, record)

    def _run(self, run: Run, lock: ownership.Lock) -> None:
        number, total = self.plan.runs.index(run) + 1, len(self.plan.runs)
        print(f"Run {number} of {total}: {run.recipe}, seed {run.seed}.", flush=True)
        try:
            record = self.runner.run(run)
        except (StoppedError, *_NOT_OF_THE_RUN):
            raise
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
            record = dataclasses.replace(self.runner.blank(run), status="failed", error=text)
            print(f"Run {run.name} failed: {text}", file=sys.stderr, flush=True)
        lock.check()
        results_folder.write(self._file(run), record)
        if not self.plan.study.keep_checkpoints and record.status == "done":
            _delete(self.runner.workdir(run))


def _delete(folder: epath.Path) -> None:
    if folder.exists():
        folder.rmtree()


@contextlib.contextmanager
def _released(lock: ownership.Lock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()
