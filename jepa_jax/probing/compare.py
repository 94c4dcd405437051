"""Evaluations side by side: which differences between results files are clear of noise, and which are not."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from jepa_jax.probing import intervals, results
from jepa_jax.probing.intervals import Difference
from jepa_jax.probing.results import ProbeResult, ResultsError

Row = tuple[str, str, str]  # task, probe, features

UNCLEAR, UNPAIRED, OTHER = "~", "u", "s"
NOTES = {
    UNCLEAR: "not clear of noise: the 95 % interval of the difference holds 0",
    UNPAIRED: "not the same test items, so compared without pairing",
    OTHER: "not the same probe settings",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One result, and how it differs from the first file's.

    Attributes:
        result: of this file.
        difference: accuracy − the first file's; None where that has no such row, and in the first file itself.
        marks: of `NOTES`.
    """

    result: ProbeResult
    difference: Difference | None
    marks: str


def compare(paths: Sequence[str | pathlib.Path]) -> str:
    """A table of two or more results files, each beside the first.

    Rows are matched by task, probe and features. Where both answered the same test items the difference is paired:
    items are drawn anew for both together, and probe seeds for each (bootstrap, 95 %).

    Raises:
        ResultsError: fewer than two files, one that cannot be read, or no row in common.
    """
    if len(paths) < 2:
        raise ResultsError(f"to compare takes two or more results files; found {len(paths)}.")
    records = [results.read(path) for path in paths]
    found = [_by_row(record) for record in records]
    rows = [row for row in found[0] if any(row in other for other in found[1:])]
    if not rows:
        raise ResultsError(
            f"{paths[0]} has no (task, probe, features) in common with the others; it has {_list(found[0])}."
        )
    settings = [record["settings"]["probes"] for record in records]
    letters = [_letter(number) for number in range(len(paths))]
    table: list[tuple[str, ...]] = [
        ("task", "probe", "features", f"{letters[0]} %", *(f"{x} %  ({x} − {letters[0]})" for x in letters[1:]))
    ]
    marks, count = set(), 0
    for row in rows:
        first = found[0][row]
        cells = [_accuracy(first)]
        for number, other in enumerate(found[1:], start=1):
            if row not in other:
                cells.append("–")
                continue
            cell = _cell(first, other[row], settings[0].get(row[1]) == settings[number].get(row[1]))
            marks |= set(cell.marks)
            count += 1
            cells.append(_shown(cell))
        table.append((*row, *cells))
    files = [
        f"{letter}: {path} ({_origin(record)})" for letter, path, record in zip(letters, paths, records, strict=True)
    ]
    notes = [f"{mark}  {NOTES[mark]}" for mark in NOTES if mark in marks]
    by_chance = count * (1 - intervals.LEVEL)
    notes.append("[ ]  95 % intervals over test items; those of differences, over test items and probe seeds.")
    notes.append(f"Were all {count} differences none, about {by_chance:.1f} would look clear; and two training runs of")
    notes.append("one config differ by more than these intervals, which know of one run each.")
    missing = sum(row not in rows for one in found for row in one)
    if missing:
        notes.append(f"{missing} results without a counterpart are left out.")
    return "\n".join([*files, "", results.align(table, left=3), "", *notes])


def _cell(first: ProbeResult, other: ProbeResult, same_settings: bool) -> Cell:
    ours, theirs = (results.unpack(result.correct, result.test) for result in (other, first))
    paired = other.items == first.items
    difference = (intervals.paired_difference if paired else intervals.unpaired_difference)(ours, theirs)
    marks = (UNCLEAR, not difference.clear), (UNPAIRED, not paired), (OTHER, not same_settings)
    return Cell(other, difference, "".join(mark for mark, holds in marks if holds))


def _by_row(record: dict[str, Any]) -> dict[Row, ProbeResult]:
    return {(result.task, result.probe, result.features): result for result in record["results"]}


def _accuracy(result: ProbeResult) -> str:
    low, high = map(results.percent, result.interval)
    return f"{results.percent(result.accuracy)} [{low}, {high}]"


def _shown(cell: Cell) -> str:
    assert cell.difference is not None
    value, low, high = (f"{100 * share:+.1f}" for share in cell.difference)
    return f"{_accuracy(cell.result)}  {value} [{low}, {high}] {cell.marks:<3}"


def _origin(record: dict[str, Any]) -> str:
    checkpoint = record["checkpoint"]
    return f"{checkpoint['source']}, step {checkpoint['step']}, {checkpoint['weights']}"


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"#{number + 1}"


def _list(rows: dict[Row, ProbeResult]) -> str:
    return "; ".join(" ".join(row) for row in rows)
