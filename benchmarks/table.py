"""Results as Markdown on standard output, as benchmarks/all.py copies them; everything else goes to standard error."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def show(titles: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
    """Prints a table. Each row has one value per title.

    Args:
        titles: of the columns.
        rows: values, already formatted or converted by `str`.
        caption: a line before the table.
    """
    head, *lines = (f"| {' | '.join(map(str, cells))} |" for cells in (titles, *_checked(rows, len(titles))))
    if caption:
        print(f"\n{caption}")
    print("\n".join(["", head, "|---" * len(titles) + "|", *lines]), flush=True)


def _checked(rows: Iterable[Sequence[Any]], columns: int) -> Iterator[Sequence[Any]]:
    for row in rows:
        assert len(row) == columns, row
        yield row


def progress(text: str) -> None:
    """Prints a line that is not part of the results."""
    print(text, file=sys.stderr, flush=True)
