"""What a raw set holds, whatever its layout on disk: items with labels, in parts that make up splits."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal


class PrepareError(RuntimeError):
    """A raw set that cannot be read, or a prepared one that cannot be written: says what, where and what to do."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One video or image."""

    id: str
    label: int  # an index into the set's classes
    path: str
    row: int = -1  # within a parquet file; −1: the file is the item


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawSet:
    """A set as it was downloaded."""

    name: str
    kind: Literal["videos", "images"]
    classes: tuple[str, ...]  # in the official order
    parts: Mapping[str, Sequence[Item]]  # disjoint; each becomes a TFDS split
    splits: Mapping[str, Sequence[Sequence[str]]]  # split → fold → parts
    official: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)  # split → items of each fold
    notes: tuple[str, ...] = ()  # what was left out, for the person who started it
