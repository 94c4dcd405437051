"""What an evaluation found: the record of one probe, the table on the terminal, results.json.

The file's schema, with the meaning and unit of every field, is `results.schema.json` beside this module.
"""

import base64
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jepa_jax.probing import intervals
from jepa_jax.probing.config import Setting

SCHEMA = "jepa_jax/results"
VERSION = 1
UNITS = {"accuracy": "share of test items, 0 to 1", "seconds": "s", "clip": "frames and pixels"}


class ResultsError(ValueError):
    """A results file that cannot be read: says which, and what is wrong with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """One probe of one kind of features on one label of the data. Shares are in 0…1.

    Attributes:
        features: what was probed: "trained", "untrained", or a control.
        task: label of the data.
        probe: name of the probe in the config.
        accuracy: share of the test items whose class is predicted (top-1), mean over probe seeds.
        accuracies: of each probe seed.
        standard_deviation: of `accuracies` (n − 1); None for a single seed.
        interval: bootstrap 95 % interval of `accuracy` over test items.
        chance: 1 / number of classes.
        majority: accuracy on the test items of always answering the commonest training class.
        class_names: of the classes, in the order of what follows.
        per_class: accuracy on the items of each class, mean over probe seeds; None for a class that no item has.
        confusion: how often a class (row) was taken for another (column), all probe seeds together.
        train, test: numbers of items; `train` includes those held out to choose among settings.
        chosen: the settings of the probe that was scored.
        validation: the mean accuracy of every setting tried on the part of training that was held out; empty where
            there was nothing to choose; an accuracy of None means that training diverged.
        correct: for each probe seed, one bit a test item in order, packed from the highest bit on, in base64.
        items: fingerprint of the test items and their classes: results with the same one can be paired.
        seconds: of training and scoring.
    """

    features: str
    task: str
    probe: str
    accuracy: float
    accuracies: tuple[float, ...]
    standard_deviation: float | None
    interval: tuple[float, float]
    chance: float
    majority: float
    class_names: tuple[str, ...]
    per_class: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    train: int
    test: int
    chosen: Setting
    validation: tuple[Mapping[str, float | int | None], ...]
    correct: tuple[str, ...]
    items: str
    seconds: float


def score(
    *,
    features: str,
    task: str,
    probe: str,
    predicted_SxI: Int[np.ndarray, "seeds items"],
    train_labels: Int[np.ndarray, "train"],
    test_labels: Int[np.ndarray, "items"],
    class_names: Sequence[str],
    item_names: Iterable[str],
    chosen: Setting,
    validation: Sequence[Mapping[str, float | int | None]] = (),
    seconds: float = 0.0,
) -> ProbeResult:
    """The record of a probe whose seeds predicted `predicted_SxI` where `test_labels` is right.

    Args:
        features: what was probed.
        task: label of the data.
        probe: name of the probe.
        predicted_SxI: classes as indices into `class_names`.
        train_labels: likewise, of the items the probe was trained on.
        test_labels: likewise.
        class_names: of all classes.
        item_names: of the test items, in order: two evaluations that name the same can be compared item by item.
        chosen: settings of the probe.
        validation: see `ProbeResult`.
        seconds: how long it took.
    """
    correct_SxI = predicted_SxI == test_labels
    accuracies = correct_SxI.mean(axis=1)
    confusion = confusion_matrix(predicted_SxI, test_labels, len(class_names))
    return ProbeResult(
        features=features,
        task=task,
        probe=probe,
        accuracy=float(accuracies.mean()),
        accuracies=tuple(accuracies.tolist()),
        standard_deviation=float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        interval=intervals.interval(correct_SxI),
        chance=1 / len(class_names),
        majority=float(np.mean(test_labels == np.bincount(train_labels).argmax())),
        class_names=tuple(class_names),
        per_class=_per_class(confusion),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        train=len(train_labels),
        test=len(test_labels),
        chosen=dict(chosen),
        validation=tuple(dict(setting) for setting in validation),
        correct=pack(correct_SxI),
        items=fingerprint(item_names, (class_names[int(label)] for label in test_labels)),
        seconds=round(seconds, 2),
    )


def pool(folds: Sequence[ProbeResult]) -> ProbeResult:
    """One record of a probe that was trained anew for each fold: about all items, in the order of the folds.

    `train` is the mean number of items a probe was trained on; `chosen` is empty where folds chose differently, and
    each of `validation` says of which `fold` it is.
    """
    first = folds[0]
    items_K = np.array([fold.test for fold in folds])
    correct_SxI = np.concatenate([unpack(fold.correct, fold.test) for fold in folds], axis=1)
    accuracies = correct_SxI.mean(axis=1)
    confusion = np.sum([fold.confusion for fold in folds], axis=0)
    return dataclasses.replace(
        first,
        accuracy=float(accuracies.mean()),
        accuracies=tuple(accuracies.tolist()),
        standard_deviation=float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        interval=intervals.interval(correct_SxI),
        majority=float(np.average([fold.majority for fold in folds], weights=items_K)),
        per_class=_per_class(confusion),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        train=round(float(np.mean([fold.train for fold in folds]))),
        test=int(items_K.sum()),
        chosen=first.chosen if all(fold.chosen == first.chosen for fold in folds) else {},
        validation=tuple({"fold": k, **setting} for k, fold in enumerate(folds) for setting in fold.validation),
        correct=pack(correct_SxI),
        items=hashlib.sha256("\n".join(fold.items for fold in folds).encode()).hexdigest()[:16],
        seconds=round(sum(fold.seconds for fold in folds), 2),
    )


def _per_class(confusion: Int[np.ndarray, "classes classes"]) -> tuple[float | None, ...]:
    totals = confusion.sum(axis=1)
    return tuple(
        float(right / total) if total else None for right, total in zip(confusion.diagonal(), totals, strict=True)
    )


def confusion_matrix(
    predicted_SxI: Int[np.ndarray, "seeds items"], labels: Int[np.ndarray, "items"], classes: int
) -> Int[np.ndarray, "{classes} {classes}"]:
    """Counts of (true class, predicted class), all probe seeds together."""
    pairs = labels.astype(np.int64) * classes + predicted_SxI
    return np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)


def pack(correct_SxI: Bool[np.ndarray, "seeds items"]) -> tuple[str, ...]:
    """One base64 string of bits for each probe seed."""
    return tuple(base64.b64encode(np.packbits(row).tobytes()).decode("ascii") for row in correct_SxI)


def unpack(correct: Sequence[str], items: int) -> Bool[np.ndarray, "seeds {items}"]:
    """What `pack` packed."""
    bits = [np.frombuffer(base64.b64decode(text), np.uint8) for text in correct]
    return np.stack([np.unpackbits(row, count=items) for row in bits]).astype(bool)


def fingerprint(item_names: Iterable[str], class_names: Iterable[str]) -> str:
    """A short hash of the test items and what they truly are, in order."""
    text = "\n".join(f"{item}\t{name}" for item, name in zip(item_names, class_names, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def table(results: Sequence[ProbeResult]) -> str:
    """The results as text, a line each, in percent, with the 95 % interval over test items."""
    head = (
        "task",
        "probe",
        "features",
        "accuracy %",
        "95 % interval",
        "± seeds",
        "chance %",
        "majority %",
        "train",
        "test",
    )
    rows: list[tuple[str, ...]] = [head]
    for r in results:
        deviation = "–" if r.standard_deviation is None else percent(r.standard_deviation)
        span = f"{percent(r.interval[0])} – {percent(r.interval[1])}"
        shares = (percent(r.accuracy), span, deviation, percent(r.chance), percent(r.majority))
        rows.append((r.task, r.probe, r.features, *shares, str(r.train), str(r.test)))
    return align(rows, left=3)


def representation_table(measures: Mapping[str, Mapping[str, float | None]]) -> str:
    """Measures without labels as text, a line for each encoder."""
    names = list(next(iter(measures.values())))
    rows = [("without labels", *(name.replace("_", " ") for name in names))]
    for encoder, values in measures.items():
        rows.append((encoder, *("–" if values[name] is None else f"{values[name]:.3g}" for name in names)))
    return align(rows, left=1)


def percent(share: float) -> str:
    """A share of 0…1 in percent, with one decimal."""
    return f"{100 * share:.1f}"


def align(rows: Sequence[Sequence[str]], left: int) -> str:
    """Rows as lines of equal length below a rule, the first `left` columns flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([*map(str.ljust, row[:left], widths[:left]), *map(str.rjust, row[left:], widths[left:])])
        for row in rows
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def write(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """`record`, beneath the name and version of the schema, as JSON; in one piece or not at all."""
    whole = {"schema": SCHEMA, "version": VERSION, "units": UNITS, **record}
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    part = path.with_name(path.name + ".part")
    part.write_text(_short_lists(text) + "\n", encoding="utf-8")
    os.replace(part, path)


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """A results file, with its `results` as `ProbeResult`s.

    Args:
        path: results.json; or FILE.jsonl that `--watch` wrote, of which the last step is read, or FILE.jsonl:STEP.

    Raises:
        ResultsError: no such file or step, no JSON, of another kind or version, or a field is missing.
    """
    file, _, step = str(path).rpartition(":")
    file, step = (file, step) if file.endswith(".jsonl") else (str(path), "")
    try:
        text = pathlib.Path(file).read_text(encoding="utf-8")
        record = _of_step(file, text, step) if file.endswith(".jsonl") else json.loads(text)
    except OSError as error:
        raise ResultsError(f"{file} cannot be read: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{file} is no JSON: {error}.") from error
    found = (record.get("schema"), record.get("version")) if isinstance(record, dict) else (None, None)
    if found != (SCHEMA, VERSION):
        raise ResultsError(
            f"{path} is not a results file of version {VERSION}: its schema is {found[0]!r}, version {found[1]!r}; "
            f"expected {SCHEMA!r}. Evaluate again to write it anew."
        )
    try:
        record["results"] = [
            ProbeResult(**{key: _frozen(value) for key, value in row.items()}) for row in record["results"]
        ]
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{path} does not follow {SCHEMA} version {VERSION}: {error}.") from error
    return record


def _of_step(file: str, lines: str, step: str) -> Any:
    """The record of a step among lines of JSON, or of the last step; a later line replaces an earlier one."""
    whole = lines.rpartition("\n")[0].splitlines()  # what follows was cut short
    try:
        records = {record["checkpoint"]["step"]: record for record in map(json.loads, whole)}
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{file} has lines that are no results of a checkpoint.") from error
    if not records:
        raise ResultsError(f"{file} has no results yet.")
    if step and step not in map(str, records):
        raise ResultsError(f"{file} has no step {step!r}; it has {', '.join(map(str, sorted(records)))}.")
    return records[int(step) if step else max(records)]


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _short_lists(text: str) -> str:
    """Lists of plain numbers on one line each: a confusion matrix is a line a class."""
    scalar = r"(?:-?\d[\d.eE+-]*|null)"
    return re.sub(
        rf"\[\s+({scalar}(?:,\s+{scalar})*)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text
    )
