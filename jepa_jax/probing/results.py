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
        chance: 1 / classes.
        majority: accuracy on the test clips of always answering the commonest training class.
        train, test: numbers of clips.
    """

    task: str
    probe: str
    accuracy: float
    standard_error: float
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
) -> ProbeResult:
    """The record of a probe that predicted `predicted` where `test_labels` is right."""
    accuracy = float(np.mean(predicted == test_labels))
    commonest = np.bincount(train_labels).argmax()
    return ProbeResult(
        task=task,
        probe=probe,
        accuracy=accuracy,
        standard_error=float(np.sqrt(accuracy * (1 - accuracy) / len(test_labels))),
        chance=1 / classes,
        majority=float(np.mean(test_labels == commonest)),
        classes=classes,
        train=len(train_labels),
        test=len(test_labels),
        seconds=round(seconds, 2),
    )


def table(results: Sequence[ProbeResult]) -> str:
    """The results as text, a line each, in percent."""
    rows = [("task", "probe", "accuracy %", "chance %", "majority %", "train", "test")]
    for r in results:
        accuracy = f"{100 * r.accuracy:.1f} ± {100 * r.standard_error:.1f}"
        rows.append(
            (r.task, r.probe, accuracy, f"{100 * r.chance:.1f}", f"{100 * r.majority:.1f}", str(r.train), str(r.test))
        )
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
