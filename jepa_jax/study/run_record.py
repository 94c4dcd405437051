"""The files of a study's folder `results`: one record for each run, the controls and the plan.

    results/study.json          StudyRecord: settings, recipes with their seeds, contrasts
    results/controls.json       ControlsRecord: probes of what no run trained (untrained encoder, pixels)
    results/RECIPE/SEED.json    RunRecord: one training run and its probes

Records depend only on the settings, except for `machine`, `software`, `timing` and the speed in `training`
(`RunRecord.reproducible` leaves these out). Numbers that are not finite are null.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from jepa_jax.settings import at_least, share

VERSION = 1
STUDY, CONTROLS = "study.json", "controls.json"
ALL = "all"  # `features` of the encoder's output
Number = int | float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """One probe.

    Attributes:
        clips_seen: clips that the encoder was trained on before it was probed; 0 for controls.
        label_fraction: share of the labelled training clips that the probe was trained on, above 0 and at most 1.
        features: what was probed: "all" (the encoder's output), "appearance half", "dynamics half", or the name of a
            control, such as "shuffled".
        label: what is predicted, such as "order".
        probe: name of the probe.
        correct: test items that were predicted correctly, summed over probe seeds.
        total: test items × probe seeds.
        accuracy: correct / total.
        row: in controls.json the name of the control, such as "untrained"; else empty.
    """

    clips_seen: int
    label_fraction: float
    features: str
    label: str
    probe: str
    correct: int
    total: int
    accuracy: float
    row: str = ""

    def __post_init__(self) -> None:
        at_least(self, 0, "clips_seen", "correct")
        at_least(self, 1, "total")
        share(self, "label_fraction")
        if not self.label_fraction:
            raise ValueError("label_fraction is 0; expected a share above 0")
        if self.correct > self.total or not math.isclose(self.accuracy, self.correct / self.total, abs_tol=1e-9):
            raise ValueError(
                f"correct, total and accuracy are {self.correct}, {self.total} and {self.accuracy}; expected "
                "accuracy = correct / total, at most 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Software:
    """Versions that produced a record."""

    jepa_jax: str = ""
    jax: str = ""
    python: str = ""
    commit: str = ""  # of a checkout; empty if installed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a record was made: JAX's name of the device, and its speed in a float32 matrix product."""

    device: str = ""
    matmul_gflops: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Size and speed of a training run. A run that was resumed reports the seconds of its last part.

    Attributes:
        steps: number of updates; 0 if the run failed before it ended.
        clips: steps × batch size.
        seconds: of training, compilation included.
        clips_per_second: after compilation.
        flops_per_step: of the compiled step; null if unknown.
    """

    steps: int = 0
    clips: int = 0
    seconds: float = 0.0
    clips_per_second: float = 0.0
    flops_per_step: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditTerm:
    """The gradient audit of one objective, a value for each audited step.

    Attributes:
        loss: of the objective, unweighted.
        gradient_norm: L2 norm of its gradient on the encoder.
        cosine_to_prediction: cosine similarity with the encoder gradient of the prediction objective.
    """

    loss: tuple[Number, ...] = ()
    gradient_norm: tuple[Number, ...] = ()
    cosine_to_prediction: tuple[Number, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """The gradient audit of a run; `step` is empty if it was off. In JSON the terms are beside `step`."""

    step: tuple[int, ...] = ()
    terms: Mapping[str, AuditTerm] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, term in self.terms.items():
            for field in dataclasses.fields(term):
                _same_length(f"{name}.{field.name}", getattr(term, field.name), self.step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run of a study.

    Attributes:
        study: name of the study.
        recipe: its recipe.
        seed: its seed.
        settings_sha256: fingerprint of all settings that determine the results.
        status: whether the run ended.
        error: of a failed run, whose other fields may be empty.
        curves: metrics over training by name, such as `loss`, `target_std` and `target_rank`, and their `step`.
        audit: the gradient audit.
        accuracies: all probes.
        representation: other measures of the final encoder by name: label-free ones, and `velocity_r2`.
        timing: seconds of parts of the run.
    """

    study: str
    recipe: str
    seed: int
    settings_sha256: str
    status: Literal["done", "failed"]
    error: str | None = None
    software: Software = Software()
    machine: Machine = Machine()
    training: Training = Training()
    curves: Mapping[str, tuple[Number, ...]] = dataclasses.field(default_factory=dict)
    audit: Audit = Audit()
    accuracies: tuple[Accuracy, ...] = ()
    representation: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    timing: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.status == "failed") != bool(self.error):
            raise ValueError(f"status is {self.status!r} and error is {self.error!r}; only failed runs have an error")
        if self.curves and "step" not in self.curves:
            raise ValueError("curves has no 'step'")
        for name, values in self.curves.items():
            _same_length(f"curves.{name}", values, self.curves["step"])

    def reproducible(self) -> dict[str, Any]:
        """The content that is the same whenever and wherever the run is repeated with the same software and device."""
        content = to_json(self)
        for name in ("software", "machine", "timing"):
            del content[name]
        for name in ("seconds", "clips_per_second"):
            del content["training"][name]
        return content


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """What a probe predicts: number of classes, test items, and labelled training items."""

    classes: int
    test: int
    train: int

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return 1 / self.classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlsRecord:
    """The probes of what no run trained. `row` of each accuracy is the name of the control.

    Attributes:
        study: name of the study.
        settings_sha256: fingerprint of all settings that determine the results.
        labels: what the probes of the study predict, by name.
        accuracies: all probes.
        representation: the measures of `RunRecord`, for controls that have them.
    """

    study: str
    settings_sha256: str
    software: Software = Software()
    machine: Machine = Machine()
    labels: Mapping[str, Label] = dataclasses.field(default_factory=dict)
    accuracies: tuple[Accuracy, ...] = ()
    representation: Mapping[str, Mapping[str, Number]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipePlan:
    """A recipe of a study.

    Attributes:
        summary: what it changes, in words.
        primary: whether it is one of the recipes with more seeds.
        seeds: of its runs.
        changes: its settings that differ from the study's base, as lines `config.key: base → recipe`.
    """

    summary: str = ""
    primary: bool = False
    seeds: tuple[int, ...] = ()
    changes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What was planned.

    Attributes:
        study: name of the study.
        recipes: in the order of the report.
        contrasts: (recipe, reference), named before running.
        clip_fractions: shares of the training clips after which encoders are probed.
        label_fractions: shares of the labels that the final encoder is probed with.
        settings: the whole study config (see `study_config.StudyConfig`), as nested settings.
    """

    study: str
    recipes: Mapping[str, RecipePlan]
    contrasts: tuple[tuple[str, str], ...]
    clip_fractions: tuple[float, ...]
    label_fractions: tuple[float, ...]
    settings: Mapping[str, Any]


Record = RunRecord | ControlsRecord | StudyRecord


def to_json(record: Record) -> dict[str, Any]:
    """The record as JSON has it."""
    content = {"version": VERSION, **dataclasses.asdict(record)}
    if isinstance(record, RunRecord):
        audit = content["audit"]
        content["audit"] = {"step": audit["step"], **audit["terms"]} if audit["step"] else {}
        for row in content["accuracies"]:
            del row["row"]
    return content


def _same_length(name: str, values: tuple[Number, ...], steps: tuple[Number, ...]) -> None:
    if len(values) != len(steps):
        raise ValueError(f"{name} has {len(values)} values for {len(steps)} steps")
