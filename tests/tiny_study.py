"""A minimal study, and a runner that trains nothing."""

import dataclasses
import json
import time
from typing import Any, ClassVar

import tiny_run

from jepa_jax.config import Config, SourceConfig
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.files.paths import write_text
from jepa_jax.settings import parse
from jepa_jax.study.engine.prober import Probed, Prober
from jepa_jax.study.engine.runner import Runner
from jepa_jax.study.plan import Plan
from jepa_jax.study.run_record import Accuracy, Label, Machine, Software, Training
from jepa_jax.study.study_config import StudyConfig

SPRITES = EvalConfig(
    train=SourceConfig(kind="sprites", clips=48),
    test=SourceConfig(kind="sprites", split="test", clips=24),
    probes={"linear": ProbeConfig(kind="ridge", penalty=(1.0,))},  # compiles nothing
    controls=("raw pixels",),
    representation=True,
    velocity=True,
    workers=0,
)
STUDY = StudyConfig(
    name="tiny",
    train=parse(Config, tiny_run.SETTINGS | {"clip": {"frames": 8, "size": 16}, "audit": {"every": 3}}),
    evaluations={"sprites": SPRITES},
    primary=("baseline", "fwm"),
    primary_seeds=3,
    secondary=("ld",),
    secondary_seeds=1,
    contrasts=(("fwm", "baseline"),),
    clip_fractions=(0.5, 1.0),
    label_fractions=(0.5, 1.0),
)


def plan(**changes):
    return Plan(dataclasses.replace(STUDY, **changes))


def accuracy(correct, row=""):
    values = {"clips_seen": 48, "label_fraction": 1.0, "features": "all", "label": "order", "probe": "linear"}
    return Accuracy(**values, correct=correct, total=24, accuracy=correct / 24, row=row)


class FakeProber(Prober):
    """Has the results of the controls without an encoder."""

    labels: ClassVar = {"order": Label(classes=6, test=24, train=48)}

    def __init__(self):
        pass

    def probe_controls(self, config):
        del config
        return {"untrained": Probed((accuracy(4, "untrained"),), {"rankme": 2.0})}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeRunner(Runner):
    """Counts to STEPS in files of the run's folder instead of training, and notes each finished run in a log.

    Attributes:
        pause: seconds of a step.
        errors: exceptions that runs raise, by name.
        before: called with each run.
    """

    prober: Prober = dataclasses.field(default_factory=FakeProber)
    software: Software = dataclasses.field(default_factory=Software)
    machine: Machine = dataclasses.field(default_factory=Machine)
    pause: float = 0.0
    errors: dict = dataclasses.field(default_factory=dict)
    before: Any = None

    STEPS: ClassVar = 5

    def run(self, run):
        if self.before is not None:
            self.before(run)
        workdir = self.workdir(run)
        workdir.mkdir(parents=True, exist_ok=True)
        for step in range(self.STEPS):
            if not (workdir / str(step)).exists():
                time.sleep(self.pause)
                write_text(workdir / str(step), json.dumps(run.seed * 10 + step))
        if run.name in self.errors:
            raise self.errors[run.name]
        total = sum(json.loads((workdir / str(step)).read_text()) for step in range(self.STEPS))
        with open(self.folder / "finished.log", "a") as log:
            log.write(f"{run.name}\n")
        training = Training(steps=self.STEPS, clips=8 * self.STEPS)
        return dataclasses.replace(self.blank(run), training=training, accuracies=(accuracy(total % 24),))

    def finished(self):
        """Names of the runs that have ended, in order."""
        return (self.folder / "finished.log").read_text().split()
