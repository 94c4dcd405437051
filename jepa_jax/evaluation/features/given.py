"""Features that any program wrote, as arrays with a table of clips: `python -m jepa_jax.evaluate --features DIR`.

DIR has the layout of `python -m jepa_jax.features`:

    mean.npy   [clips, channels], one vector for each clip
    frames.npy [clips, time steps, channels], all.npy [clips, tokens, channels], mean-level-2.npy, …: what there is
    clips.csv  a header and a line for each row of the arrays, with the columns `clip` (its name) and `label`, and
               optionally `split` (train or test)

or DIR/train and DIR/test have it. Further columns and files are ignored.
"""

import csv
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jepa_jax.data.evaluation_clips import FILE_TASK
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.features import rows as feature_rows
from jepa_jax.evaluation.features.feature_set import Features
from jepa_jax.settings import ConfigError

TABLE, DESCRIPTION = "clips.csv", "features.json"
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class GivenFeatures:
    """Training and test features.

    Attributes:
        train: features of the training clips.
        test: features of the test clips; with `fold_by` the same.
        classes: names of the classes.
        train_names: of the training clips.
        test_names: of the test clips.
        description: the content of features.json; empty without one.
    """

    train: Features
    test: Features
    classes: tuple[str, ...]
    train_names: tuple[str, ...]
    test_names: tuple[str, ...]
    description: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Table:
    tokens: dict[str, np.ndarray]
    clips: list[str]
    labels: list[str]
    splits: list[str]


def read(folder: pathlib.Path, config: EvalConfig) -> GivenFeatures:
    """Reads the arrays that the probes of a config read, and splits their rows.

    The test set is DIR/test, else by `config.fold_by`, else the clips whose names match `config.holdout`, else those
    with `split` test.

    Raises:
        ConfigError: a folder of another layout, arrays that do not fit clips.csv, clips without a label, or no split.
        FloatingPointError: features that are not finite.
    """
    kinds = config.kinds_of_features
    if all((folder / name).is_dir() for name in SPLITS):
        if config.fold_by or config.holdout:
            raise ConfigError(f"--features: {folder} has test clips; leave config.fold_by and config.holdout empty.")
        train, test = (_read(folder / name, kinds) for name in SPLITS)
        described = folder / "train"
    else:
        whole = _read(folder, kinds)
        train, test = (whole, whole) if config.fold_by else _split(whole, folder, config)
        described = folder
    for name, part in (("training", train), ("test", test)):
        if not part.clips:
            raise ConfigError(f"--features: {folder} has no {name} clips.")
    classes = tuple(sorted({*train.labels, *test.labels}))
    return GivenFeatures(
        _features(train, classes),
        _features(test, classes),
        classes,
        tuple(train.clips),
        tuple(test.clips),
        _description(described / DESCRIPTION),
    )


def array_name(kind: str) -> str:
    """Returns the file of a kind of features, such as mean-level-2.npy."""
    return f"{kind.replace('_', '-')}.npy"


def _read(folder: pathlib.Path, kinds: Iterable[str]) -> _Table:
    file = folder / TABLE
    if not file.is_file():
        raise ConfigError(
            f"--features: {folder} has no {TABLE}; expected arrays and {TABLE} as python -m jepa_jax.features writes "
            "them, or the folders train and test of such files."
        )
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        table = csv.DictReader(opened)
        lines = list(table)
    missing = [name for name in ("clip", "label") if name not in (table.fieldnames or ())]
    if missing:
        raise ConfigError(f"{file} has no column {' and no column '.join(missing)}; expected clip, label.")
    unlabelled = [line["clip"] for line in lines if not line["label"]]
    if unlabelled:
        raise ConfigError(f"{file}: {len(unlabelled):,} clips have no label, such as {unlabelled[0]}.")
    tokens = {
        kind: _open(folder / array_name(kind), kind, len(lines))
        for kind in kinds
        if (folder / array_name(kind)).is_file()
    }
    if not tokens:
        found = ", ".join(sorted(path.name for path in folder.glob("*.npy"))) or "no array"
        raise ConfigError(f"--features: the probes read {', '.join(map(array_name, kinds))}; {folder} has {found}.")
    return _Table(
        tokens,
        [line["clip"] for line in lines],
        [line["label"] for line in lines],
        [line.get("split") or "" for line in lines],
    )


def _open(file: pathlib.Path, kind: str, rows: int) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not a NumPy array of numbers: {error}.") from error
    dimensions = 2 if kind.startswith("mean") else 3
    if array.ndim != dimensions or len(array) != rows or not np.issubdtype(array.dtype, np.floating):
        shape = "[clips, channels]" if dimensions == 2 else "[clips, tokens, channels]"
        raise ConfigError(
            f"{file} is {array.dtype} {list(array.shape)}; expected floats {shape} with a row for each of the {rows} "
            f"lines of {TABLE}."
        )
    first = 0
    for part in feature_rows.chunks(array):
        finite_B = np.isfinite(part).reshape(len(part), -1).all(1)
        if not finite_B.all():
            raise FloatingPointError(f"{file}: row {first + int(np.argmin(finite_B))} is not finite.")
        first += len(part)
    return array


def _split(whole: _Table, folder: pathlib.Path, config: EvalConfig) -> tuple[_Table, _Table]:
    if config.holdout:
        try:
            is_test = np.array([re.search(config.holdout, clip) is not None for clip in whole.clips])
        except re.error as error:
            raise ConfigError(f"config.holdout: {config.holdout!r} is not a regular expression: {error}.") from error
    else:
        if wrong := sorted(set(whole.splits) - set(SPLITS)):
            raise ConfigError(
                f"--features: which clips of {folder} are test clips is not known: {TABLE} has the split {wrong[0]!r}. "
                "Set config.holdout or config.fold_by, add a column split (train or test), or use folders train and "
                "test."
            )
        is_test = np.array([split == "test" for split in whole.splits])
    return _select(whole, ~is_test), _select(whole, is_test)


def _select(table: _Table, selected: np.ndarray) -> _Table:
    def pick(values: Sequence[str]) -> list[str]:
        return [value for value, wanted in zip(values, selected, strict=True) if wanted]

    tokens = {kind: array[np.flatnonzero(selected)] for kind, array in table.tokens.items()}
    return _Table(tokens, pick(table.clips), pick(table.labels), pick(table.splits))


def _features(table: _Table, classes: Sequence[str]) -> Features:
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[label] for label in table.labels], np.int32)
    return Features(table.tokens, {FILE_TASK: labels}, np.arange(len(labels), dtype=np.int32), 0.0)


def _description(file: pathlib.Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not valid JSON: {error}.") from error
    return content if isinstance(content, dict) else {}
