"""Rows of features as probes read them: some of a set, a few at a time."""

import concurrent.futures
import mmap
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int


@runtime_checkable
class Source(Protocol):
    """Features of a set, one row an item: an array in memory, a file, or an encoder that makes them when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, E) or (rows, N, E)."""
        ...

    @property
    def dtype(self) -> Any:
        """Of what reading gives."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """The rows of ascending numbers."""
        ...


def read(source: Source, index_R: Int[np.ndarray, "R"]) -> np.ndarray:
    """The rows of ascending numbers, as an array of their own; of a file nothing stays in memory but these."""
    rows = np.array(source[index_R])
    # Pages of a mapped file count as the process's memory until they are given up.
    mapped = getattr(source, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    return rows


def in_batches(
    index_R: Int[np.ndarray, "R"], size: int
) -> Iterator[tuple[Int[np.ndarray, "{size}"], Bool[np.ndarray, "{size}"]]]:
    """`index_R` in batches of one size; the last is filled up with its last row, marked as not valid."""
    for first in range(0, len(index_R), size):
        place = np.arange(first, first + size)
        yield index_R[np.minimum(place, len(index_R) - 1)], place < len(index_R)


def read_ahead(source: Source, parts: Iterator[Int[np.ndarray, "R"]]) -> Iterator[np.ndarray]:
    """`read` for each of `parts`, the next one being read while the one before is used."""
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        waiting = None
        for part in parts:
            ready, waiting = waiting, reader.submit(read, source, part)
            if ready is not None:
                yield ready.result()
        if waiting is not None:
            yield waiting.result()
