"""Labels and held-out clips: classes seen in training, test folds, and validation clips for a probe's settings."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.settings import ConfigError


class LabelError(ValueError):
    """Labels that a probe cannot be trained or scored on; the message has the task and the classes."""


class Split(NamedTuple):
    """Training rows to fit and rows held out, as ascending row numbers."""

    fit: Int[np.ndarray, "fit"]
    held: Int[np.ndarray, "held"]


def outer_folds(config: EvalConfig, item_names: Sequence[str]) -> list[np.ndarray]:
    """Returns the items of each test fold, int32; every item is in one fold.

    Args:
        config: the match of `fold_by` in an item's name is its group. Sorted groups are assigned to `folds` folds in
            turn; with 0 folds, each group is a fold.
        item_names: of all items.

    Raises:
        ConfigError: a name without a match, or fewer than two groups.
    """
    keys = _group_keys("fold_by", config.fold_by, item_names)
    groups = sorted(set(keys))
    number = config.folds or len(groups)
    if not 2 <= number <= len(groups):
        raise ConfigError(
            f"config.folds, config.fold_by: {len(groups)} groups ({', '.join(map(repr, groups[:5]))}, …) in {number} "
            "folds; at least two folds are needed, with at least one group each."
        )
    fold_of = {group: i % number for i, group in enumerate(groups)}
    fold_I = np.array([fold_of[key] for key in keys])
    return [np.flatnonzero(fold_I == fold).astype(np.int32) for fold in range(number)]


def training_groups(config: EvalConfig, item_names: Sequence[str]) -> np.ndarray | None:
    """Returns the group number of each training item by `config.groups`, else by `fold_by`; None if both are empty.

    Raises:
        ConfigError: not a regular expression, a name without a match, or a single group.
    """
    if not config.groups:
        if not config.fold_by:
            return None
        keys = _group_keys("fold_by", config.fold_by, item_names)
    else:
        try:
            keys = _group_keys("groups", config.groups, item_names)
        except re.error as error:
            raise ConfigError(f"config.groups: {config.groups!r} is not a regular expression: {error}.") from error
    names, number_I = np.unique(keys, return_inverse=True)
    if config.groups and len(names) < 2:
        raise ConfigError(
            f"config.groups: {config.groups!r} matches {str(names[0])!r} in every training clip; it must match a "
            "different text in each recording, as seq(\\d+) does, or be empty."
        )
    return number_I


def _group_keys(setting: str, expression: str, item_names: Sequence[str]) -> list[str]:
    """The match of the expression, or of its first group, in each name."""
    matches = [re.search(expression, name) for name in item_names]
    for name, match in zip(item_names, matches, strict=True):
        if match is None:
            raise ConfigError(f"config.{setting}: {expression!r} does not match {name!r}; it must match every clip.")
    return [match[match.re.groups and 1] or "" for match in matches if match is not None]


def validation_splits(
    labels: Int[np.ndarray, "rows"],
    share: float,
    key: PRNGKeyArray,
    groups: Int[np.ndarray, "rows"] | None = None,
    *,
    every: bool,
) -> list[Split]:
    """Returns stratified splits that hold out about `share` of the rows each; rows of a group stay together.

    The splits depend on labels, groups, share and key only, not on features.

    Args:
        labels: of the rows.
        share: of the rows that a split holds out.
        key: of the random choice.
        groups: group number of each row; None, or all equal: every row is its own group.
        every: True returns 1 / share splits that hold out every row once (cross-validation); False returns one split
            that leaves rows of every class to train on.

    Raises:
        LabelError: too few rows or groups to split.
    """
    if groups is not None and len(np.unique(groups)) == 1:
        groups = None
    if not every and groups is None:
        return [hold_out(labels, share, key)]
    number = max(2, round(1 / share))
    fold_R = _folds(labels, number, key) if groups is None else _grouped_folds(labels, groups, number, key)
    splits = (Split(np.flatnonzero(fold_R != fold), np.flatnonzero(fold_R == fold)) for fold in np.unique(fold_R))
    return list(splits) if every else [_first_with_every_class(labels, splits)]


def hold_out(labels: Int[np.ndarray, "rows"], share: float, key: PRNGKeyArray) -> Split:
    """Holds out about `share` of each class at random; every class keeps a row to train on.

    Raises:
        LabelError: too few rows to hold any out.
    """
    order = _by_class(labels, key)
    first_of_class = np.r_[True, np.diff(labels[order]) != 0]
    candidates = order[~first_of_class]
    count = min(round(share * len(labels)), len(candidates))
    if not count:
        raise LabelError(
            f"of {len(labels)} training clips in {first_of_class.sum()} classes, a share of {share} cannot be held out "
            "to choose among settings: use a single lr, weight_decay, penalty and number of neighbours, more clips, or "
            "a larger share (validation)."
        )
    # Evenly spaced among rows sorted by class, hence in proportion to the size of each class.
    held = candidates[((np.arange(count) + 0.5) * len(candidates) / count).astype(int)]
    return Split(np.setdiff1d(np.arange(len(labels)), held), np.sort(held))


def _folds(labels: Int[np.ndarray, "rows"], number: int, key: PRNGKeyArray) -> Int[np.ndarray, "rows"]:
    """The fold of each row: rows, shuffled within each class, are assigned to the folds in turn."""
    fold_R = np.empty(len(labels), int)
    fold_R[_by_class(labels, key)] = np.arange(len(labels)) % number
    return fold_R


def _grouped_folds(
    labels: Int[np.ndarray, "rows"], groups: Int[np.ndarray, "rows"], number: int, key: PRNGKeyArray
) -> Int[np.ndarray, "rows"]:
    """The fold of each row: each group, the largest first, goes to the fold that has least of its classes."""
    names_G, group_R = np.unique(groups, return_inverse=True)
    count_GxC = np.zeros((len(names_G), labels.max() + 1))
    np.add.at(count_GxC, (group_R, labels), 1)
    share_GxC = count_GxC / np.maximum(count_GxC.sum(axis=0), 1)
    size_G = count_GxC.sum(axis=1)
    taken_KxC, rows_K = np.zeros((min(number, len(names_G)), count_GxC.shape[1])), np.zeros(min(number, len(names_G)))
    fold_G = np.empty(len(names_G), int)
    for group in np.lexsort((_rng(key).random(len(names_G)), -size_G)):
        fold = fold_G[group] = np.lexsort((rows_K, taken_KxC @ share_GxC[group]))[0]
        taken_KxC[fold] += share_GxC[group]
        rows_K[fold] += size_G[group]
    return fold_G[group_R]


def _first_with_every_class(labels: Int[np.ndarray, "rows"], splits: Iterator[Split]) -> Split:
    for split in splits:
        if len(np.unique(labels[split.fit])) == len(np.unique(labels)):
            return split
    raise LabelError(
        "whole groups of training clips are held out to choose among settings (config.groups), and every split would "
        "leave some class without training clips: use a single setting, or groups that have several classes."
    )


def _by_class(labels: Int[np.ndarray, "rows"], key: PRNGKeyArray) -> Int[np.ndarray, "rows"]:
    """Rows sorted by class, in random order within each class."""
    return np.lexsort((_rng(key).random(len(labels)), labels))


def _rng(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def seen_classes(
    task: str, train: Int[np.ndarray, "train"], test: Int[np.ndarray, "test"], names: Sequence[str]
) -> tuple[Int[np.ndarray, "train"], Int[np.ndarray, "test"], tuple[str, ...]]:
    """Returns both sets' labels as indices into the classes that occur in training, and the names of those classes.

    Args:
        task: name of the label, for errors.
        train: training labels, as indices into `names`.
        test: test labels, as indices into `names`.
        names: of all classes; some may not occur.

    Raises:
        LabelError: labels outside the names, a single class, or a test class never seen in training.
    """
    for name, labels in (("training", train), ("test", test)):
        wrong = (labels < 0) | (labels >= len(names))
        if wrong.any():
            values = ", ".join(map(str, np.unique(labels[wrong])[:5]))
            raise LabelError(
                f"{task}: {wrong.sum()} of {len(labels)} {name} clips have a label ({values}) that is not a class; "
                f"classes are numbered 0 to {len(names) - 1}."
            )
    seen = np.unique(train)
    classes = tuple(names[int(label)] for label in seen)
    if len(classes) < 2:
        raise LabelError(
            f"{task}: all training clips are of class {_list(classes)}; a probe needs at least two classes."
        )
    unseen = np.setdiff1d(test, seen)
    if len(unseen):
        missing = _list([names[int(label)] for label in unseen])
        raise LabelError(
            f"{task}: no training clip is of class {missing}, which the test set has; training has {_list(classes)}."
        )
    return np.searchsorted(seen, train).astype(np.int32), np.searchsorted(seen, test).astype(np.int32), classes


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
