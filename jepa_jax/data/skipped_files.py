"""Undecodable files: how they are replaced and recorded, and how many are allowed."""

import json
import pathlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from jepa_jax.data import faults
from jepa_jax.data.listing import names
from jepa_jax.files import jsonl

SHOWN = 10


class Skip(NamedTuple):
    """An item that could not be decoded."""

    source: str
    item: int
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{names.printable(self.path)}: {self.reason}"


class TooManySkippedError(RuntimeError):
    """More items of a source are undecodable than allowed."""


Clip = TypeVar("Clip")


def too_many(skipped: int, size: int, max_fraction: float) -> bool:
    """Whether `skipped` of `size` items exceed the allowed fraction, or are all items."""
    return skipped > max_fraction * size or skipped >= size


def first_decodable(
    source: str,
    size: int,
    item: int,
    read: Callable[[int], Clip],
    max_fraction: float,
) -> tuple[int, Clip | None, tuple[Skip, ...]]:
    """Returns the first decodable item of a source, starting at `item` and wrapping around at the end.

    The result depends only on the files, so it is the same in every process and after every restart.

    Args:
        source: name of the source.
        size: number of items in the source.
        item: the item to start at.
        read: returns the clip of an item, or raises DecodeError.
        max_fraction: the share of the source that may be undecodable.

    Returns:
        The item, its clip, and the items skipped before it. The clip is None if more items were skipped than allowed.
    """
    skips = []
    while True:
        try:
            return item, read(item), tuple(skips)
        except faults.DecodeError as error:
            skips.append(Skip(source, item, error.path, error.reason))
            if too_many(len(skips), size, max_fraction):
                return item, None, tuple(skips)
            item = (item + 1) % size


class SkipLedger:
    """The file `skipped.jsonl`: one line per undecodable file, kept when a run resumes."""

    def __init__(self, file: pathlib.Path | None, sizes: Mapping[str, int], max_fraction: float):
        """With `file` None the list is kept in memory only. `sizes`: number of items of each source, by name."""
        self._file = file
        self._sizes = sizes
        self._max_fraction = max_fraction
        self._skips: dict[tuple[str, int], Skip] = {}
        self._unshared: list[Skip] = []
        self._lock = threading.Lock()  # batches are read in a separate thread
        if file is not None:
            for line in jsonl.whole_lines(file):
                skip = Skip(**json.loads(line))
                self._skips[skip.source, skip.item] = skip

    @property
    def skips(self) -> list[Skip]:
        """All skips so far, in order of occurrence."""
        return list(self._skips.values())

    def add(self, skips: Iterable[Skip]) -> None:
        """Records the skips that are not in the ledger yet.

        Raises:
            TooManySkippedError: a source has more undecodable items than the allowed fraction; lists the first ten.
        """
        given = {(skip.source, skip.item): skip for skip in skips}
        with self._lock:
            new = {key: skip for key, skip in given.items() if key not in self._skips}
            self._skips |= new
            self._unshared += new.values()
            if self._file is not None and new:
                with self._file.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(skip._asdict()) + "\n" for skip in new.values())
        # Known skips count too, so that a resumed run fails for the same reason as before.
        for source in sorted({skip.source for skip in given.values()}):
            self._check(source)

    def pop_unshared(self) -> list[Skip]:
        """Returns the skips added since the last call, for the ledgers of other processes."""
        with self._lock:
            taken, self._unshared = self._unshared, []
        return taken

    def _check(self, source: str) -> None:
        skips = [skip for skip in self.skips if skip.source == source]
        size = self._sizes[source]
        if too_many(len(skips), size, self._max_fraction):
            reason, count = Counter(skip.reason for skip in skips).most_common(1)[0]
            example = next(names.printable(skip.path) for skip in skips if skip.reason == reason)
            listed = "\n".join(f"  {skip}" for skip in skips[:SHOWN])
            raise TooManySkippedError(
                f"Source {source!r}: {len(skips)} of {size} items cannot be decoded, more than "
                f"max_skip_fraction = {self._max_fraction:g} allows. "
                f"The most frequent reason, {count} of {len(skips)} times: {reason}, as in {example}. "
                f"{'The first ten' if len(skips) > SHOWN else 'They are'}:\n{listed}"
            )
