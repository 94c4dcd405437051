"""Rows of features as probes read them: ahead of the computation, in batches of one size, and no more at a time."""

import concurrent.futures
import mmap
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

from jepa_jax.probing import features
from jepa_jax.probing.features import Rows

Batch = tuple[Int[np.ndarray, "B"], Bool[np.ndarray, "B"]]


def read_ahead(source: Rows, parts: Sequence[Int[np.ndarray, "_"]]) -> Iterator[np.ndarray]:
    """The rows of each of `parts`, the next being read while the one before is used."""
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        read = features.read(source, parts)
        waiting = reader.submit(next, read, None)
        while (ready := waiting.result()) is not None:
            _release(source)
            waiting = reader.submit(next, read, None)
            yield ready


def in_batches(rows_R: Int[np.ndarray, "R"], size: int) -> Iterator[Batch]:
    """Row numbers in batches of one size; the last is filled up with its last, marked as not valid."""
    for first in range(0, len(rows_R), size):
        place_B = np.arange(first, first + size)
        yield rows_R[np.minimum(place_B, len(rows_R) - 1)], place_B < len(rows_R)


def _release(source: Rows) -> None:
    """Gives up the pages of a mapped file that were read: they count as the process's memory as long as it has them."""
    mapped = getattr(source, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
