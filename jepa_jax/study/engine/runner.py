"""One run of a study: training, probes at fractions of the training, and the record."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from jepa_jax.checkpoints.reader import CheckpointError
from jepa_jax.cost_model import flops
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.files import jsonl
from jepa_jax.settings import parse
from jepa_jax.study.engine.prober import Prober
from jepa_jax.study.plan import Plan, Run
from jepa_jax.study.run_record import Accuracy, Audit, AuditTerm, Machine, RunRecord, Software, Training
from jepa_jax.training import loop
from jepa_jax.training.metrics import metrics_file

PROBED = "study_probes.jsonl"  # in the run's folder: a line for each probed step
POINTS = 64  # of a curve, at most
DIGITS = 6  # significant, of the values of curves
# Names in records of metrics that training logs (rank and spread of features, see `training.collapse`).
RENAMED = {
    "feature_std/target": "target_std",
    "rank/target": "target_rank",
    "feature_std/context": "context_std",
    "rank/context": "context_rank",
}
_OMITTED = ("data/", "audit/", "clips_per_second")


class StoppedError(Exception):
    """A signal stopped the training of a run, which is saved.

    Attributes:
        signal: name of the signal.
    """

    def __init__(self, signal: str):
        super().__init__(signal)
        self.signal = signal


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs the runs of a study in this process.

    Attributes:
        plan: of the study.
        folder: for the runs' checkpoints, RECIPE/SEED.
        prober: probes the encoders.
        software: versions, for records.
        machine: for records.
        train: trains a run in a folder until its end or a signal.
    """

    plan: Plan
    folder: epath.Path
    prober: Prober
    software: Software
    machine: Machine
    train: Callable[[Any, epath.Path], loop.Outcome] = loop.train

    def workdir(self, run: Run) -> epath.Path:
        """The folder of a run's checkpoints and metrics."""
        return self.folder / run.recipe / str(run.seed)

    def run(self, run: Run) -> RunRecord:
        """Trains a run, or resumes it, and probes it. Steps that have been probed before are not probed again.

        Raises:
            StoppedError: a signal stopped the training.
            Exception: the errors of training and of probes.
        """
        started = time.monotonic()
        workdir = self.workdir(run)
        outcome = self.train(run.config, workdir)
        if outcome.stopped_by is not None:
            raise StoppedError(outcome.stopped_by)
        trained = time.monotonic()
        probed = self._probe(run, workdir)
        lines = [json.loads(line) for line in jsonl.whole_lines(workdir / metrics_file())]
        seconds = {"training": trained - started, "probing": time.monotonic() - trained}
        return dataclasses.replace(
            self.blank(run),
            training=Training(
                steps=run.config.steps,
                clips=run.clips,
                seconds=round(trained - started, 3),
                clips_per_second=round(lines[-1]["clips_per_second"], 3),
                flops_per_step=flops.model_flops(run.config),
            ),
            curves=curves(lines),
            audit=audit(lines),
            accuracies=tuple(row for found in probed for row in found.accuracies),
            representation=probed[-1].representation,
            timing={name: round(value, 3) for name, value in seconds.items()},
        )

    def blank(self, run: Run) -> RunRecord:
        """The record of a run without results."""
        return RunRecord(
            study=self.plan.study.name,
            recipe=run.recipe,
            seed=run.seed,
            settings_sha256=run.settings_sha256,
            status="done",
            software=self.software,
            machine=self.machine,
        )

    def _probe(self, run: Run, workdir: epath.Path) -> "list[_Step]":
        """The probes of all steps to be probed, ascending."""
        file = workdir / PROBED
        done = {step.step: step for step in (parse(_Step, json.loads(line)) for line in jsonl.whole_lines(file))}
        for step in self.plan.probed_steps:
            if step in done:
                continue
            final = step == run.config.steps
            encoder = self._load(workdir, step)
            found = self.prober.probe(encoder, step * run.config.batch_size, run.seed, final=final)
            done[step] = _Step(step, found.accuracies, found.representation)
            jsonl.append(file, json.dumps(dataclasses.asdict(done[step]), allow_nan=False))
        return [done[step] for step in self.plan.probed_steps]

    def _load(self, workdir: epath.Path, step: int) -> frozen_encoder.FrozenEncoder:
        try:
            return frozen_encoder.load(f"{workdir}:{step}")
        except CheckpointError as error:
            advice = f"Delete {workdir} to train this run again."
            raise CheckpointError(f"Step {step} cannot be probed: {error} {advice}") from error


@dataclasses.dataclass(frozen=True)
class _Step:
    """The probes of one step, as stored in the run's folder."""

    step: int
    accuracies: tuple[Accuracy, ...]
    representation: Mapping[str, float | None]


def curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int | float | None, ...]]:
    """Metrics over training: those of the steps whose features were measured, evenly thinned to POINTS.

    Args:
        lines: of metrics.jsonl.
    """
    measured = [line for line in lines if "rank/target" in line] or list(lines)
    every = -(-len(measured) // POINTS)
    kept = measured[len(measured) - 1 :: -every][::-1]  # with the last one
    names = [name for name in kept[-1] if not name.startswith(_OMITTED)]
    return {RENAMED.get(name, name): tuple(_number(line.get(name)) for line in kept) for name in names}


def audit(lines: Sequence[Mapping[str, Any]]) -> Audit:
    """The gradient audit in the lines of metrics.jsonl."""
    audited = [line for line in lines if any(name.startswith("audit/") for name in line)]
    if not audited:
        return Audit()
    names = dict.fromkeys(name.split("/")[1] for name in audited[0] if name.startswith("audit/"))

    def values(name: str, measure: str) -> tuple[int | float | None, ...]:
        return tuple(_number(line.get(f"audit/{name}/{measure}")) for line in audited)

    terms = {
        name: AuditTerm(
            loss=values(name, "loss"),
            gradient_norm=values(name, "gradient_encoder"),
            cosine_to_prediction=values(name, "cosine_with_prediction"),
        )
        for name in names
    }
    return Audit(step=tuple(line["step"] for line in audited), terms=terms)


def _number(value: int | float | None) -> int | float | None:
    """Rounded to DIGITS; None if it is not finite."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
