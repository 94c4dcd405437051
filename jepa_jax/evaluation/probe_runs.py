"""Probes and their inputs: which features are probed, and every probe's results on every input."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jepa_jax.data import sources
from jepa_jax.evaluation import controls, representation
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.evaluation.features.extractor import FeatureExtractor
from jepa_jax.evaluation.features.feature_set import Features
from jepa_jax.evaluation.probes import fitting, released, splits
from jepa_jax.evaluation.results import probe_result
from jepa_jax.evaluation.results.clip_predictions import ClipPredictions
from jepa_jax.evaluation.results.probe_result import ProbeResult
from jepa_jax.settings import ConfigError, nearest

Classes = Mapping[str, Sequence[str]]  # names of the classes of each task

TRAINED, UNTRAINED = "trained", "untrained"  # TRAINED: the encoder of --checkpoint, even if that is random


@dataclasses.dataclass(frozen=True)
class ProbeInput:
    """Features to train probes on and to score them on.

    Attributes:
        train: features of the training clips.
        tests: features of the test clips, which may have other labels; each becomes a result whose `features` is its
            name.
    """

    train: Features
    tests: Mapping[str, Features]


def control_encoders(config: EvalConfig, trained: FeatureExtractor) -> dict[str, FeatureExtractor]:
    """Returns the feature extractors of the controls in the config.

    Raises:
        ConfigError: reversed clips, of a set whose labels are unknown for reversed clips.
    """
    if controls.REVERSED in config.controls and not sources.kind_of(config.test).reversible:
        raise ConfigError(
            "config.controls: 'reversed' needs clips with known labels when played backwards, which only sprites have; "
            f"config.test.kind is {config.test.kind!r}."
        )
    return {name: controls.encoder(name, trained, config.seed) for name in config.controls}


def make_probe_inputs(
    train: Mapping[str, Features],
    test: Mapping[str, Features],
    halves: Mapping[str, np.ndarray] | None = None,
    kind: type[sources.Source] = sources.Source,
) -> list[ProbeInput]:
    """Pairs training and test features.

    Args:
        train: features of the training clips, by encoder or control.
        test: features of the test clips. The trained encoder's probes are also scored on reversed clips, if given.
        halves: channel indices, by name; for each, the trained encoder's mean of these channels is a further input.
        kind: of the test source; it knows the labels of reversed clips.
    """
    probe_inputs = []
    for name, features in train.items():
        tests = {name: test[name]}
        if name == TRAINED and controls.REVERSED in test:
            backwards = test[controls.REVERSED]
            labels = kind.reverse_labels(backwards.labels)
            tests[controls.REVERSED] = dataclasses.replace(backwards, labels=labels)
        probe_inputs.append(ProbeInput(features, tests))
    for name, channels in (halves or {}).items():
        if len(channels):
            train_half, test_half = (representation.half(features[TRAINED], channels) for features in (train, test))
            probe_inputs.append(ProbeInput(train_half, {name: test_half}))
    return probe_inputs


def hold_out(probe_input: ProbeInput, items: np.ndarray, views: int = 1) -> ProbeInput:
    """Returns one fold's input: trained on all other items, scored on these. It is copied into memory.

    Test items have `views` rows each, training items one.
    """
    return ProbeInput(
        select(probe_input.train, ~np.isin(probe_input.train.items, items)),
        {name: select(test, np.isin(test.items // views, items)) for name, test in probe_input.tests.items()},
    )


def select(features: Features, selected: np.ndarray) -> Features:
    """The rows of features where `selected`, a bool for each, is true; copied into memory."""
    rows = np.flatnonzero(selected)
    return dataclasses.replace(
        features,
        tokens={kind: tokens[rows] for kind, tokens in features.tokens.items()},
        labels={task: values[rows] for task, values in features.labels.items()},
        items=features.items[rows],
    )


def pair_probes(config: EvalConfig, tasks: Classes) -> list[tuple[str, str]]:
    """Returns the (task, probe) pairs to run, in the order of the tasks.

    Raises:
        ConfigError: a probe for a task without labels.
    """
    for name, probe in config.probes.items():
        if probe.task and probe.task not in tasks:
            hint = nearest(probe.task, tasks)
            raise ConfigError(f"config.probes.{name}.task is {probe.task!r}, for which the clips have no labels.{hint}")
    return [(task, name) for task in tasks for name, probe in config.probes.items() if probe.task in ("", task)]


def run_probes(
    config: EvalConfig,
    pairs: Sequence[tuple[str, str]],
    probe_inputs: Sequence[ProbeInput],
    tasks: Classes,
    item_names: Sequence[str],
    views: int = 1,
    groups: np.ndarray | None = None,
) -> tuple[list[ProbeResult], list[ClipPredictions]]:
    """Trains every probe of `pairs` on every input; returns results and predictions for each of its test sets.

    Args:
        config: the probes and their seed.
        pairs: (task, probe), in the order of the results.
        probe_inputs: in the order of the results within a pair.
        tasks: names of the classes of each task.
        item_names: of all test items, undecodable ones included.
        views: rows of a test item; a probe's scores are averaged over them.
        groups: group number of each training item (`splits.training_groups`).

    Raises:
        LabelError: labels that a probe cannot be trained or scored on.
        FloatingPointError: a probe's loss is not finite.
    """
    for probe_input in probe_inputs:
        for name, test in probe_input.tests.items():
            if len(set((test.items // views).tolist())) < 2:
                raise splits.LabelError(
                    f"the test set ({name}) has one clip; a confidence interval needs at least two."
                )
    width = max((len(tasks[task]) for task, _ in pairs), default=0)  # label sets share one compiled program
    key = jax.random.key(config.seed)
    folds = splits.outer_folds(config, item_names) if config.fold_by else []
    results, predictions = [], []
    for task, probe in pairs:
        for probe_input in probe_inputs:
            if not _reads(config.probes[probe], probe_input):
                continue
            parts = [hold_out(probe_input, items, views) for items in folds] or [probe_input]
            runs = [
                _run_probe(config, task, probe, part, tasks[task], item_names, views, groups, width, key)
                for part in parts
            ]
            for of_test_set in zip(*runs, strict=True):
                fold_results = [result for result, _ in of_test_set]
                results.append(probe_result.pool(fold_results) if folds else fold_results[0])
                predictions += [of_fold for _, of_fold in of_test_set]
    return results, predictions


def _reads(probe: ProbeConfig, probe_input: ProbeInput) -> bool:
    """Whether a probe can be run: controls of pixels have few kinds of features; released probes fit one encoder."""
    if probe.released:
        return next(iter(probe_input.tests)) == TRAINED
    return probe.features in probe_input.train.tokens


def _predict(
    config: EvalConfig,
    name: str,
    probe_input: ProbeInput,
    train_labels: np.ndarray,
    classes: Sequence[str],
    items: Mapping[str, np.ndarray],
    groups: np.ndarray | None,
    width: int,
    key: jax.Array,
    title: str,
) -> fitting.Predictions:
    """Trains a probe, or reads a released one, and predicts the test sets."""
    probe = config.probes[name]
    if probe.released:
        numbers_C = released.class_numbers(name, probe, classes)
        found = {
            row: released.predict(probe, test.tokens[probe.features], test.items, config.views, numbers_C)
            for row, test in probe_input.tests.items()
        }
        return fitting.Predictions(
            {row: each.predicted_1xI for row, each in found.items()},
            {row: each.probability_1xI for row, each in found.items()},
            chosen={},
        )
    return fitting.run(
        probe,
        probe_input.train.tokens[probe.features],
        train_labels,
        {row: test.tokens[probe.features] for row, test in probe_input.tests.items()},
        len(classes),
        key,
        width=width,
        items=items,
        groups=None if groups is None else groups[probe_input.train.items],
        name=title,
    )


def _run_probe(
    config: EvalConfig,
    task: str,
    name: str,
    probe_input: ProbeInput,
    class_names: Sequence[str],
    item_names: Sequence[str],
    views: int,
    groups: np.ndarray | None,
    width: int,
    key: jax.Array,
) -> list[tuple[ProbeResult, ClipPredictions]]:
    """Trains one probe on one input; returns a result and predictions for each test set."""
    items = {row: test.items // views for row, test in probe_input.tests.items()}
    first = {row: np.unique(item_R, return_index=True)[1] for row, item_R in items.items()}
    seen = {
        row: splits.seen_classes(task, probe_input.train.labels[task], test.labels[task][first[row]], class_names)
        for row, test in probe_input.tests.items()
    }
    train_labels, _, classes = next(iter(seen.values()))
    started = time.monotonic()
    title = " ".join([task, name, next(iter(probe_input.tests))])
    predictions = _predict(config, name, probe_input, train_labels, classes, items, groups, width, key, title)
    pairs = []
    for row in probe_input.tests:
        test_labels = seen[row][1]
        clips = [item_names[int(item)] for item in items[row][first[row]]]
        result = probe_result.score(
            features=row,
            task=task,
            probe=name,
            predicted_SxI=predictions.predicted[row],
            train_labels=train_labels,
            test_labels=test_labels,
            class_names=classes,
            item_names=clips,
            chosen=predictions.chosen,
            validation=predictions.validation,
            converged=predictions.converged,
            seconds=time.monotonic() - started,
        )
        of_clips = ClipPredictions(
            features=row,
            task=task,
            probe=name,
            clips=clips,
            class_names=classes,
            label_I=test_labels,
            predicted_SxI=predictions.predicted[row],
            probability_SxI=predictions.probability[row],
        )
        pairs.append((result, of_clips))
    return pairs
