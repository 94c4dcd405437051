"""Results as Markdown on standard output, as benchmarks/all.py copies them; everything else goes to standard error."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any


def show(titles: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
    """Prints a table. Each row has one value per title.

    Args:
        titles: of the columns.
        rows: values, already formatted or converted by `str`.
        caption: a line before the table.
    """
    lines = [titles, ["---"] * len(titles), *rows]
    assert {len(line) for line in lines} == {len(titles)}
    if caption:
        print(f"\n{caption}")
    print("\n" + "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), flush=True)


def progress(text: str) -> None:
    """Prints a line that is not part of the results."""
    print(text, file=sys.stderr, flush=True)
