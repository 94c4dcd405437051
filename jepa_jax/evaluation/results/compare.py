"""Compares results files and marks the differences that are not statistically significant."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from jepa_jax.evaluation.results import intervals, results_file
from jepa_jax.evaluation.results import table as tables
from jepa_jax.evaluation.results.intervals import Difference
from jepa_jax.evaluation.results.probe_result import ProbeResult, unpack
from jepa_jax.evaluation.results.results_file import ResultsError

ADDED = {"released": "", "labels": ""}  # settings of probes that older files do not have
Row = tuple[str, str, str]  # task, probe, features

INSIGNIFICANT, UNPAIRED, OTHER = "~", "u", "s"
NOTES = {
    INSIGNIFICANT: "not statistically significant: the 95 % confidence interval of the difference includes 0",
    UNPAIRED: "not the same test items, so compared without pairing",
    OTHER: "not the same probe settings",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One result, and its difference from the first file's.

    Attributes:
        result: of this file.
        difference: this accuracy − the first file's.
        marks: keys of `NOTES`.
    """

    result: ProbeResult
    difference: Difference
    marks: str


def compare(paths: Sequence[str | pathlib.Path]) -> str:
    """Returns a table of two or more results files, each compared with the first.

    Rows are matched by task, probe and features. The difference is paired if both have the same test items.

    Raises:
        ResultsError: fewer than two files, one that cannot be read, rendered test sets of different versions, or no row
            in common.
    """
    if len(paths) < 2:
        raise ResultsError(f"--compare needs two or more results files; found {len(paths)}.")
    records = [results_file.read(path) for path in paths]
    _check_versions(paths, records)
    results = [_by_row(record) for record in records]
    rows = [row for row in results[0] if any(row in other for other in results[1:])]
    if not rows:
        raise ResultsError(
            f"{paths[0]} has no (task, probe, features) in common with the others; it has {_list(results[0])}."
        )
    settings = [record["settings"]["probes"] for record in records]
    letters = [_letter(number) for number in range(len(paths))]
    table: list[tuple[str, ...]] = [
        ("task", "probe", "features", f"{letters[0]} %", *(f"{x} %  ({x} − {letters[0]})" for x in letters[1:]))
    ]
    marks, count = set(), 0
    for row in rows:
        first = results[0][row]
        cells = [_accuracy(first)]
        for number, other in enumerate(results[1:], start=1):
            if row not in other:
                cells.append("–")
                continue
            same = ADDED | settings[0].get(row[1], {}) == ADDED | settings[number].get(row[1], {})
            cell = _cell(first, other[row], same)
            marks |= set(cell.marks)
            count += 1
            cells.append(_shown(cell))
        table.append((*row, *cells))
    files = [
        f"{letter}: {path} ({_origin(record)})" for letter, path, record in zip(letters, paths, records, strict=True)
    ]
    notes = [f"{mark}  {NOTES[mark]}" for mark in NOTES if mark in marks]
    by_chance = count * (1 - intervals.LEVEL)
    notes.append("[ ]  95 % confidence intervals over test items and probe seeds.")
    notes.append(f"     Accuracies: {intervals.ONE}.")
    notes.append(f"     Differences: {intervals.TWO}.")
    notes.append(f"If all {count} differences were 0, about {by_chance:.1f} would still be significant.")
    notes.append("The intervals exclude variance between training runs: compare recipes with several seeds.")
    missing = sum(row not in rows for one in results for row in one)
    if missing:
        notes.append(f"{missing} results without a counterpart are left out.")
    return "\n".join([*files, "", tables.align(table, left=3), "", *notes])


def _check_versions(paths: Sequence[str | pathlib.Path], records: Sequence[dict[str, Any]]) -> None:
    """Raises ResultsError if the files are of different versions of the same rendered set."""
    first: dict[str, tuple[Any, str | pathlib.Path]] = {}
    for path, record in zip(paths, records, strict=True):
        kind = record["settings"].get("test", {}).get("kind")
        version = record.get("versions", {}).get(kind)
        if version is None:
            continue
        other, there = first.setdefault(kind, (version, path))
        if version != other:
            raise ResultsError(
                f"{there} has results of version {other} of {kind}, {path} of version {version}: their clips and "
                "labels differ, so accuracies are not comparable. Evaluate both with one version."
            )


def _cell(first: ProbeResult, other: ProbeResult, same_settings: bool) -> Cell:
    ours, theirs = (unpack(result.correct, result.test) for result in (other, first))
    paired = other.items == first.items
    difference = (intervals.paired_difference if paired else intervals.unpaired_difference)(ours, theirs)
    marks = (INSIGNIFICANT, not difference.significant), (UNPAIRED, not paired), (OTHER, not same_settings)
    return Cell(other, difference, "".join(mark for mark, holds in marks if holds))


def _by_row(record: dict[str, Any]) -> dict[Row, ProbeResult]:
    return {(result.task, result.probe, result.features): result for result in record["results"]}


def _accuracy(result: ProbeResult) -> str:
    # Computed again, so that files with intervals by other methods are comparable.
    low, high = map(tables.percent, intervals.interval(unpack(result.correct, result.test)))
    return f"{tables.percent(result.accuracy)} [{low}, {high}]"


def _shown(cell: Cell) -> str:
    value, low, high = (f"{100 * share:+.1f}" for share in cell.difference)
    return f"{_accuracy(cell.result)}  {value} [{low}, {high}] {cell.marks:<3}"


def _origin(record: dict[str, Any]) -> str:
    checkpoint = record["checkpoint"]
    return f"{checkpoint['source']}, step {checkpoint['step']}, {checkpoint['weights']}"


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"#{number + 1}"


def _list(rows: dict[Row, ProbeResult]) -> str:
    return "; ".join(" ".join(row) for row in rows)
