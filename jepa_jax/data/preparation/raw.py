"""Raw datasets, independent of their layout on disk: labelled items, in parts that make up splits."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from jepa_jax.data import skipped_files
from jepa_jax.files.remote.remote_path import RemotePath


class PrepareError(RuntimeError):
    """A raw set cannot be read, or a prepared set cannot be written."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One video or image."""

    id: str
    label: int  # an index into the set's classes
    path: str  # or URL
    row: int = -1  # of a parquet file; −1 if the file is the item


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawSet:
    """A dataset as downloaded."""

    name: str
    kind: Literal["videos", "images"]
    classes: tuple[str, ...]  # in the official order
    parts: Mapping[str, Sequence[Item]]  # disjoint; each becomes a TFDS split
    splits: Mapping[str, Sequence[Sequence[str]]]  # split → fold → parts
    official: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)  # split → items of each fold
    skips: Sequence[skipped_files.Skip] = ()  # listed items that cannot be used, with the reason for each
    notes: tuple[str, ...] = ()  # messages for the user about files that were left out
    remote: RemotePath | None = None  # the root of a remote set, whose listing has the states of the items' files
