"""What an evaluation found: the record of one probe, the table on the terminal, results.json."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """One probe on one label of the data; shares are in 0…1.

    Attributes:
        accuracy: share of the test clips whose class is predicted (top-1).
        standard_error: of `accuracy`, over the choice of test clips: √(p(1−p)/n).
        untrained, untrained_standard_error: the same of the untrained encoder; None where it was not probed.
        chance: 1 / classes.
        majority: accuracy on the test clips of always answering the commonest training class.
        train, test: numbers of clips.
    """

    task: str
    probe: str
    accuracy: float
    standard_error: float
    untrained: float | None
    untrained_standard_error: float | None
    chance: float
    majority: float
    classes: int
    train: int
    test: int
    seconds: float


def score(
    task: str,
    probe: str,
    predicted: Int[np.ndarray, "test"],
    train_labels: Int[np.ndarray, "train"],
    test_labels: Int[np.ndarray, "test"],
    classes: int,
    seconds: float,
    untrained: Int[np.ndarray, "test"] | None = None,
) -> ProbeResult:
    """The record of a probe that predicted `predicted`, on the untrained encoder `untrained`, where `test_labels` is
    right.
    """
    accuracy, standard_error = _accuracy(predicted, test_labels)
    untrained_accuracy = (None, None) if untrained is None else _accuracy(untrained, test_labels)
    commonest = np.bincount(train_labels).argmax()
    return ProbeResult(
        task=task,
        probe=probe,
        accuracy=accuracy,
        standard_error=standard_error,
        untrained=untrained_accuracy[0],
        untrained_standard_error=untrained_accuracy[1],
        chance=1 / classes,
        majority=float(np.mean(test_labels == commonest)),
        classes=classes,
        train=len(train_labels),
        test=len(test_labels),
        seconds=round(seconds, 2),
    )


def _accuracy(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    accuracy = float(np.mean(predicted == labels))
    return accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(labels)))


def table(results: Sequence[ProbeResult]) -> str:
    """The results as text, a line each, in percent; ± one standard error over the choice of test clips."""

    def percent(share: float | None, error: float | None = None) -> str:
        if share is None:
            return "–"
        return f"{100 * share:.1f}" if error is None else f"{100 * share:.1f} ± {100 * error:.1f}"

    rows = [("task", "probe", "accuracy %", "untrained %", "chance %", "majority %", "train", "test")]
    for r in results:
        shares = (percent(r.accuracy, r.standard_error), percent(r.untrained, r.untrained_standard_error))
        rows.append((r.task, r.probe, *shares, percent(r.chance), percent(r.majority), str(r.train), str(r.test)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [*map(str.ljust, row[:2], widths[:2]), *map(str.rjust, row[2:], widths[2:])]
        lines.append("  ".join(cells))
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def write(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """`record` as JSON, in one piece or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)
