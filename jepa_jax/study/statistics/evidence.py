"""The accuracies of a study by recipe, seed and probe, from whatever records are there."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from jepa_jax.study import results_folder
from jepa_jax.study.run_record import ALL, Accuracy, ControlsRecord, Label, RunRecord, StudyRecord

BASELINE, BASELINE_NO_EMA = "baseline", "baseline_no_ema"
UNTRAINED = "untrained"


class Endpoint(NamedTuple):
    """What is measured: a label and the probe that predicts it."""

    label: str
    probe: str


class Curve(NamedTuple):
    """Accuracy of a recipe against clips seen or against the share of labels.

    Attributes:
        x_P: clips or shares, ascending; those that all runs were probed at.
        seeds: of the runs.
        accuracy_SxP: of each seed.
    """

    x_P: tuple[float, ...]
    seeds: tuple[int, ...]
    accuracy_SxP: Float[np.ndarray, "S P"]

    def of(self, seeds: Iterable[int]) -> Float[np.ndarray, "S P"]:
        """The rows of some seeds."""
        return self.accuracy_SxP[[self.seeds.index(seed) for seed in seeds]]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All records of a study.

    Attributes:
        runs: records of runs, done and failed, by recipe and seed.
        controls: probes of what no run trained; None if they have not been made.
        study: the plan; None if it is missing.
    """

    runs: tuple[RunRecord, ...]
    controls: ControlsRecord | None = None
    study: StudyRecord | None = None

    @classmethod
    def read(cls, results: epath.PathLike) -> "Evidence":
        """Reads a folder of results. Raises RecordError if a file cannot be read."""
        return cls(
            tuple(results_folder.read_runs(results)),
            results_folder.read_controls(results),
            results_folder.read_study(results),
        )

    @property
    def name(self) -> str:
        """Name of the study; empty if there are no records."""
        records = [record for record in (self.study, self.controls, *self.runs) if record is not None]
        return records[0].study if records else ""

    @functools.cached_property
    def recipes(self) -> tuple[str, ...]:
        """Planned recipes in the order of the plan, then others that have records."""
        planned = self.study.recipes if self.study else ()
        found = sorted({run.recipe for run in self.runs}, key=lambda name: (name != BASELINE, name))
        return tuple(dict.fromkeys([*planned, *found]))

    @functools.cached_property
    def done(self) -> Mapping[str, Mapping[int, RunRecord]]:
        """Runs that ended, by recipe and seed. Every recipe has an entry."""
        found: dict[str, dict[int, RunRecord]] = {recipe: {} for recipe in self.recipes}
        for run in self.runs:
            if run.status == "done":
                found[run.recipe][run.seed] = run
        return {recipe: dict(sorted(runs.items())) for recipe, runs in found.items()}

    @property
    def failed(self) -> list[RunRecord]:
        """Runs that failed."""
        return [run for run in self.runs if run.status == "failed"]

    def planned_seeds(self, recipe: str) -> tuple[int, ...]:
        """The seeds planned for a recipe; without a plan for it, those that were found."""
        if self.study and recipe in self.study.recipes:
            return self.study.recipes[recipe].seeds
        return tuple(sorted(run.seed for run in self.runs if run.recipe == recipe))

    @property
    def contrasts(self) -> tuple[tuple[str, str], ...]:
        """(recipe, reference), named before running."""
        return self.study.contrasts if self.study else ()

    @functools.cached_property
    def main_recipes(self) -> tuple[str, ...]:
        """Primary recipes and those of contrasts, in order; all recipes if there are none."""
        named = {name for pair in self.contrasts for name in pair}
        plans = self.study.recipes if self.study else {}
        primary = {recipe for recipe, plan in plans.items() if plan.primary}
        return tuple(recipe for recipe in self.recipes if recipe in named | primary) or self.recipes

    @property
    def other_recipes(self) -> tuple[str, ...]:
        """Recipes that are not main ones."""
        return tuple(recipe for recipe in self.recipes if recipe not in self.main_recipes)

    @functools.cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What was measured: labels in the order of the controls, each with its probes."""
        found = dict.fromkeys(Endpoint(row.label, row.probe) for row in self._accuracies())
        labels = list(self.controls.labels) if self.controls else []
        return tuple(sorted(found, key=lambda e: labels.index(e.label) if e.label in labels else len(labels)))

    def _accuracies(self) -> Iterable[Accuracy]:
        if self.controls:
            yield from self.controls.accuracies
        for run in self.runs:
            yield from run.accuracies

    def title(self, endpoint: Endpoint) -> str:
        """The label, with the probe if the label has several."""
        several = sum(other.label == endpoint.label for other in self.endpoints) > 1
        return f"{endpoint.label} ({endpoint.probe})" if several else endpoint.label

    def label(self, endpoint: Endpoint) -> Label | None:
        """Classes and items of a label; None without controls."""
        return self.controls.labels.get(endpoint.label) if self.controls else None

    @functools.cached_property
    def _index(self) -> dict[tuple[str, int, str, Endpoint], dict[tuple[int, float], float]]:
        """Accuracies by (clips seen, share of labels)."""
        index: dict[tuple[str, int, str, Endpoint], dict[tuple[int, float], float]] = {}
        for recipe, runs in self.done.items():
            for seed, run in runs.items():
                for row in run.accuracies:
                    key = recipe, seed, row.features, Endpoint(row.label, row.probe)
                    index.setdefault(key, {})[row.clips_seen, float(row.label_fraction)] = row.accuracy
        return index

    def _clips(self, run: RunRecord) -> int:
        """Clips that the final encoder of a run was trained on."""
        return max((row.clips_seen for row in run.accuracies), default=0)

    def final(self, recipe: str, endpoint: Endpoint, features: str = ALL) -> dict[int, float]:
        """Accuracy of the final encoder with all labels, by seed."""
        found = {}
        for seed, run in self.done.get(recipe, {}).items():
            rows = self._index.get((recipe, seed, features, endpoint), {})
            if (self._clips(run), 1.0) in rows:
                found[seed] = rows[self._clips(run), 1.0]
        return found

    def by_clips(self, recipe: str, endpoint: Endpoint) -> Curve:
        """Accuracy with all labels against clips seen."""
        values = {}
        for seed in self.final(recipe, endpoint):
            rows = self._index[recipe, seed, ALL, endpoint]
            values[seed] = {float(clips): accuracy for (clips, share), accuracy in rows.items() if share == 1}
        return _curve(values)

    def by_labels(self, recipe: str, endpoint: Endpoint) -> Curve:
        """Accuracy of the final encoder against the share of labels."""
        values = {}
        for seed in self.final(recipe, endpoint):
            clips = self._clips(self.done[recipe][seed])
            rows = self._index[recipe, seed, ALL, endpoint]
            values[seed] = {share: accuracy for (seen, share), accuracy in rows.items() if seen == clips}
        return _curve(values)

    def features(self) -> tuple[str, ...]:
        """Features other than the encoder's output that runs were probed on."""
        found = dict.fromkeys(row.features for run in self.runs if run.status == "done" for row in run.accuracies)
        return tuple(name for name in found if name != ALL)

    def control_rows(self) -> tuple[str, ...]:
        """Names of the controls."""
        return tuple(dict.fromkeys(row.row for row in self.controls.accuracies)) if self.controls else ()

    def control(self, row: str, endpoint: Endpoint, features: str = ALL) -> Accuracy | None:
        """A control probed with all labels."""
        for found in self.controls.accuracies if self.controls else ():
            if (found.row, found.features, found.label_fraction) == (row, features, 1.0) and endpoint == (
                found.label,
                found.probe,
            ):
                return found
        return None


def _curve(values: Mapping[int, Mapping[float, float]]) -> Curve:
    if not values:
        return Curve((), (), np.zeros((0, 0)))
    common = sorted(set.intersection(*(set(row) for row in values.values())))
    return Curve(
        tuple(common), tuple(values), np.array([[row[x] for x in common] for row in values.values()], np.float64)
    )
