"""What is probed in an evaluation: the encoder, what it is reported beside, and which clips are held out."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jepa_jax.config import ConfigError
from jepa_jax.data import sprites
from jepa_jax.probing import controls, representation
from jepa_jax.probing.config import EvalConfig
from jepa_jax.probing.encoding import Encode
from jepa_jax.probing.features import Features

TRAINED, UNTRAINED = "trained", "untrained"  # "trained": the encoder asked for, which may be an untrained one


@dataclasses.dataclass(frozen=True)
class Subject:
    """What probes are trained on, and what they are scored on.

    Attributes:
        train: features of the training clips.
        tests: features of test clips, which may bring labels of their own; each becomes a row of the results with this
            name in the column `features`.
    """

    train: Features
    tests: Mapping[str, Features]


def control_encoders(config: EvalConfig, trained: Encode) -> dict[str, Encode]:
    """The controls asked for, as functions of clips.

    Raises:
        ConfigError: clips played backwards, of a set whose labels do not say what they are then.
    """
    if controls.REVERSED in config.controls and config.test.kind != "sprites":
        raise ConfigError(
            "config.controls: 'reversed' takes clips whose labels are known when they are played backwards, which are "
            f"those of sprites; config.test.kind is {config.test.kind!r}."
        )
    return {name: controls.encoder(name, trained, config.seed) for name in config.controls}


def pair(
    train: Mapping[str, Features], test: Mapping[str, Features], halves: Mapping[str, np.ndarray] | None = None
) -> list[Subject]:
    """Each kind of features with the test clips its probes are scored on.

    Args:
        train: features of the training clips, by what made them.
        test: of the test clips; the trained encoder's of clips played backwards are scored with its own probes.
        halves: channels of all levels whose means are to be probed by themselves, for the trained encoder.
    """
    found = []
    for name, features in train.items():
        tests = {name: test[name]}
        if name == TRAINED and controls.REVERSED in test:
            backwards = test[controls.REVERSED]
            labels = {task: np.asarray(values) for task, values in sprites.reverse_labels(backwards.labels).items()}
            tests[controls.REVERSED] = dataclasses.replace(backwards, labels=labels)
        found.append(Subject(features, tests))
    for name, channels in (halves or {}).items():
        if len(channels):
            one, other = (representation.half(features[TRAINED], channels) for features in (train, test))
            found.append(Subject(one, {name: other}))
    return found


def folds(config: EvalConfig, item_names: Sequence[str]) -> list[np.ndarray]:
    """Which items are held out together, in turn: int32 arrays that have every item once.

    Args:
        config: `fold_by` finds in an item's name what it belongs to; the groups, in their order, are dealt to `folds`
            folds like cards, or make a fold each where it is 0.
        item_names: of all items.

    Raises:
        ConfigError: a name in which nothing is found, or fewer than two groups.
    """
    found = [re.search(config.fold_by, name) for name in item_names]
    for name, match in zip(item_names, found, strict=True):
        if match is None:
            raise ConfigError(f"config.fold_by: {config.fold_by!r} is not found in {name!r}.")
    keys = [match[match.re.groups and 1] for match in found if match is not None]
    groups = sorted(set(keys))
    number = config.folds or len(groups)
    if not 2 <= number <= len(groups):
        raise ConfigError(
            f"config.folds, config.fold_by: {len(groups)} groups ({', '.join(map(repr, groups[:5]))}, …) in {number} "
            "folds; at least two folds are needed, with a group each."
        )
    fold_of = {group: i % number for i, group in enumerate(groups)}
    fold_I = np.array([fold_of[key] for key in keys])
    return [np.flatnonzero(fold_I == fold).astype(np.int32) for fold in range(number)]


def hold_out(subject: Subject, items: np.ndarray, views: int = 1) -> Subject:
    """The subject of one fold: probes are trained on all other items, and scored on these. It is held in memory.

    Test items have `views` rows each, training items one.
    """
    return Subject(
        _only(subject.train, ~np.isin(subject.train.items, items)),
        {name: _only(test, np.isin(test.items // views, items)) for name, test in subject.tests.items()},
    )


def _only(features: Features, chosen: np.ndarray) -> Features:
    rows = np.flatnonzero(chosen)
    return dataclasses.replace(
        features,
        tokens={kind: tokens[rows] for kind, tokens in features.tokens.items()},
        labels={task: values[rows] for task, values in features.labels.items()},
        items=features.items[rows],
    )
