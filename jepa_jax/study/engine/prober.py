"""Probes of a study: a trained encoder at several times and with fewer labels, and controls that no run trains.

A `Prober` serves all runs of a process: it opens the clips once and keeps them in memory, and all encoders of a study
share their compiled programs.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np
from jaxtyping import Bool, Int

from jepa_jax.config import Config
from jepa_jax.evaluation import controls, frozen_encoder, job, labelled_clips, probe_runs, representation
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.labelled_clips import LabelledClips
from jepa_jax.evaluation.results.probe_result import ProbeResult, unpack
from jepa_jax.study.run_record import ALL, Accuracy, Label
from jepa_jax.study.study_config import StudyConfig

KEPT_BYTES = 2**29  # of each set of clips: the largest that is kept in memory
FEWEST = 2  # labelled clips of a class
VELOCITY = "velocity_r2"  # name of the R² of the velocity regression among the measures of an encoder


@dataclasses.dataclass(frozen=True)
class Probed:
    """Results of one encoder: probes, and other measures by name (NAME/MEASURE with several evaluations)."""

    accuracies: tuple[Accuracy, ...]
    representation: dict[str, float | None]


class Prober:
    """Probes encoders of one architecture with every evaluation of a study."""

    def __init__(self, study: StudyConfig):
        """Opens the clips; reads only their names.

        Raises:
            ConfigError: clips that cannot be used, or that do not fit the encoder.
        """
        self._study = study
        self._opened: dict[str, LabelledClips] = {}
        for name, evaluation in study.evaluations.items():
            self._opened[name] = labelled_clips.open_clips(evaluation, study.train, KEPT_BYTES)

    @functools.cached_property
    def labels(self) -> dict[str, Label]:
        """What the probes predict."""
        return {
            self._label(name, task): Label(classes=len(classes), test=opened.test.size, train=opened.train.size)
            for name, opened in self._opened.items()
            for task, classes in opened.train.classes.items()
        }

    def probe(self, encoder: frozen_encoder.FrozenEncoder, clips_seen: int, seed: int, *, final: bool) -> Probed:
        """Probes a trained encoder.

        Args:
            encoder: the encoder.
            clips_seen: clips that it was trained on.
            seed: of the choice of labels.
            final: also probes with fewer labels, halves of the channels and controls of the encoder, and measures it.

        Raises:
            LabelError: labels that a probe cannot be trained or scored on.
            FloatingPointError: features or a probe's loss that are not finite.
            TooManySkippedError: too many clips that cannot be decoded.
        """
        accuracies, measures = [], {}
        for name, given in self._study.evaluations.items():
            kept = tuple(control for control in given.controls if control in controls.OF_ENCODER)
            config = dataclasses.replace(given, beside_untrained=False, controls=kept)
            if not final:
                config = dataclasses.replace(config, controls=(), representation=False, velocity=False)
            rows, of_encoder = self._probe(
                name, config, encoder, self._study.label_fractions if final else (1.0,), seed
            )
            for fraction, result in rows:
                features = ALL if result.features == probe_runs.TRAINED else result.features
                accuracies.append(self._accuracy(name, result, fraction, features, clips_seen))
            measures |= self._measures(name, of_encoder)
        return Probed(tuple(accuracies), measures)

    def probe_controls(self, config: Config) -> dict[str, Probed]:
        """Probes the untrained encoder of a training config, and the evaluations' controls of pixels; by control."""
        encoder = frozen_encoder.untrained(config)
        accuracies: dict[str, list[Accuracy]] = {}
        measures = {}
        for name, given in self._study.evaluations.items():
            kept = tuple(control for control in given.controls if control not in controls.OF_ENCODER)
            own = dataclasses.replace(given, beside_untrained=False, controls=kept)
            rows, of_encoder = self._probe(name, own, encoder, self._study.label_fractions, config.seed)
            for fraction, result in rows:
                half = result.features in (representation.APPEARANCE, representation.DYNAMICS)
                row = result.features if result.features in kept else probe_runs.UNTRAINED
                found = self._accuracy(name, result, fraction, result.features if half else ALL, 0)
                accuracies.setdefault(row, []).append(dataclasses.replace(found, row=row))
            measures |= self._measures(name, of_encoder)
        return {
            row: Probed(tuple(found), measures if row == probe_runs.UNTRAINED else {})
            for row, found in accuracies.items()
        }

    def _probe(
        self,
        name: str,
        config: EvalConfig,
        encoder: frozen_encoder.FrozenEncoder,
        fractions: Sequence[float],
        seed: int,
    ) -> tuple[list[tuple[float, ProbeResult]], Mapping[str, float | None]]:
        """The results of one evaluation, each with its fraction of labels, and other measures of the encoder."""
        opened = self._opened[name]
        with _features_folder() as folder:
            extracted = job.extract(config, opened, encoder, folder)
            found = [
                (fraction, result)
                for fraction in fractions
                for result in self._run_probes(config, opened, extracted.probe_inputs, fraction, seed)
            ]
        measures = dict(extracted.measures.get(probe_runs.TRAINED, {}))
        velocities = {row.features: row.r_squared for row in extracted.velocity}
        if probe_runs.TRAINED in velocities:
            measures[VELOCITY] = velocities[probe_runs.TRAINED]
        return found, measures

    def _run_probes(
        self,
        config: EvalConfig,
        opened: LabelledClips,
        probe_inputs: Sequence[probe_runs.ProbeInput],
        fraction: float,
        seed: int,
    ) -> list[ProbeResult]:
        results = []
        for task in dict.fromkeys(task for task, _ in opened.pairs):
            inputs = list(probe_inputs)
            if fraction < 1:  # halves and controls of the encoder are probed with all labels only
                pixels = tuple(control for control in config.controls if control not in controls.OF_ENCODER)
                wanted = {probe_runs.TRAINED, *pixels}
                inputs = [one for one in inputs if wanted & one.tests.keys()]
                inputs = [_with_fewer_labels(one, task, fraction, seed, wanted) for one in inputs]
            pairs = [pair for pair in opened.pairs if pair[0] == task]
            found, _ = probe_runs.run_probes(
                config, pairs, inputs, opened.train.classes, opened.test.names, opened.test.views, opened.groups
            )
            results += found
        return results

    def _accuracy(self, name: str, result: ProbeResult, fraction: float, features: str, clips_seen: int) -> Accuracy:
        correct = int(unpack(result.correct, result.test).sum())
        total = result.test * len(result.correct)
        return Accuracy(
            clips_seen=clips_seen,
            label_fraction=fraction,
            features=features,
            label=self._label(name, result.task),
            probe=result.probe,
            correct=correct,
            total=total,
            accuracy=correct / total,
        )

    def _label(self, name: str, task: str) -> str:
        if len(self._opened[name].train.classes) == 1:
            return name
        return task if len(self._opened) == 1 else f"{name} {task}"

    def _measures(self, name: str, measures: Mapping[str, float | None]) -> dict[str, float | None]:
        finite = {key: value if value is not None and math.isfinite(value) else None for key, value in measures.items()}
        return finite if len(self._opened) == 1 else {f"{name}/{key}": value for key, value in finite.items()}


def labelled_rows(label_R: Int[np.ndarray, "R"], fraction: float, seed: int) -> Bool[np.ndarray, "R"]:
    """A random share of the rows of each class, and at least FEWEST; smaller shares are subsets of larger ones.

    Args:
        label_R: class of each row.
        fraction: the share.
        seed: of the choice.
    """
    order = np.random.default_rng(seed).permutation(len(label_R))
    chosen_R = np.zeros(len(label_R), bool)
    for label in np.unique(label_R):
        rows = order[label_R[order] == label]
        chosen_R[rows[: max(FEWEST, round(fraction * len(rows)))]] = True
    return chosen_R


def _with_fewer_labels(
    probe_input: probe_runs.ProbeInput, task: str, fraction: float, seed: int, wanted: Set[str]
) -> probe_runs.ProbeInput:
    train = probe_input.train
    few = probe_runs.select(train, labelled_rows(train.labels[task], fraction, seed))
    return probe_runs.ProbeInput(few, {name: test for name, test in probe_input.tests.items() if name in wanted})


@contextlib.contextmanager
def _features_folder() -> Iterator[pathlib.Path]:
    """A folder for features, which are used once."""
    with tempfile.TemporaryDirectory(prefix="features-") as folder:
        yield pathlib.Path(folder)
