"""Files that cannot be decoded: what takes their place, where they are written down, how many are too many."""

import json
import pathlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from jepa_jax.data import decode

SHOWN = 10


class Skip(NamedTuple):
    """An item that could not be decoded."""

    source: str
    item: int
    path: str
    reason: str


class TooManySkippedError(RuntimeError):
    """More of a source is undecodable than allowed."""


Clip = TypeVar("Clip")


def too_many(skipped: int, size: int, max_fraction: float) -> bool:
    """Whether `skipped` of `size` items are more than the allowed fraction, or all of them."""
    return skipped > max_fraction * size or skipped >= size


def first_decodable(
    source: str,
    size: int,
    item: int,
    read: Callable[[int], Clip],
    max_fraction: float,
) -> tuple[int, Clip | None, tuple[Skip, ...]]:
    """The item, or in its place the next one of the source that `read` can decode, in the order of the source.

    Which one that is depends on nothing but the files, so every process and every restart finds the same.

    Args:
        source: its name.
        size: its number of items.
        item: the one wanted.
        read: gives the clip of an item.
        max_fraction: of the source that may be undecodable.

    Returns:
        The item found, what `read` gave for it, and the items passed over. The clip is None if so many were passed
        over that the source has to be refused.
    """
    skips = []
    while True:
        try:
            return item, read(item), tuple(skips)
        except decode.DecodeError as error:
            skips.append(Skip(source, item, error.path, error.reason))
            if too_many(len(skips), size, max_fraction):
                return item, None, tuple(skips)
            item = (item + 1) % size


class SkipLedger:
    """The list `skipped.jsonl`: one line for each undecodable file, kept from run to run of a workdir."""

    def __init__(self, file: pathlib.Path | None, sizes: Mapping[str, int], max_fraction: float):
        """Without a file the list lives in memory. `sizes`: the number of items of each source by name."""
        self._file = file
        self._sizes = sizes
        self._max_fraction = max_fraction
        self._skips: dict[tuple[str, int], Skip] = {}
        self._unshared: list[Skip] = []
        self._lock = threading.Lock()  # batches are read in a thread of their own
        if file is not None and file.exists():
            whole_lines, _, torn_line = file.read_bytes().rpartition(b"\n")
            if torn_line:  # of a process killed while writing
                file.write_bytes(whole_lines + b"\n" if whole_lines else b"")
            for line in whole_lines.splitlines():
                skip = Skip(**json.loads(line))
                self._skips[skip.source, skip.item] = skip

    @property
    def skips(self) -> list[Skip]:
        """All so far, in the order in which they were met."""
        return list(self._skips.values())

    def add(self, skips: Iterable[Skip]) -> None:
        """Writes down those not known yet.

        Raises:
            TooManySkippedError: a source has more undecodable items than the allowed fraction; lists the first ten.
        """
        met = {(skip.source, skip.item): skip for skip in skips}
        with self._lock:
            new = {key: skip for key, skip in met.items() if key not in self._skips}
            self._skips |= new
            self._unshared += new.values()
            if self._file is not None and new:
                with self._file.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(skip._asdict()) + "\n" for skip in new.values())
        # Those known too: a run that goes on is refused for the reason for which it ended.
        for source in sorted({skip.source for skip in met.values()}):
            self._check(source)

    def take_unshared(self) -> list[Skip]:
        """Those added since the last call, for the ledgers of other processes."""
        with self._lock:
            taken, self._unshared = self._unshared, []
        return taken

    def _check(self, source: str) -> None:
        skips = [skip for skip in self.skips if skip.source == source]
        size = self._sizes[source]
        if too_many(len(skips), size, self._max_fraction):
            listed = "\n".join(f"  {skip.path}: {skip.reason}" for skip in skips[:SHOWN])
            raise TooManySkippedError(
                f"Source {source!r}: {len(skips)} of {size} items cannot be decoded, more than "
                f"max_skip_fraction = {self._max_fraction:g} allows. "
                f"{'The first ten' if len(skips) > SHOWN else 'They are'}:\n{listed}"
            )
