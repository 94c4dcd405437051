"""The unit of work: a stretch of a part's items → one ArrayRecord file and a note of what is in it.

What a shard holds is a function of its items and settings alone, so that any number of workers and restarts write the
same bytes. The note is written after the file has its name: a shard with a note is done.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_datasets.core import example_serializer

from jepa_jax.data import decode, prepared, skipped
from jepa_jax.preparation import frames, parallel
from jepa_jax.preparation.raw import Item, PrepareError

MOST_SHARDS = 256  # a part: each process that reads keeps every file open
FEWEST_ITEMS = 64  # of a shard: what a killed worker loses at most, where a part is small
KEPT = "kept: "  # how the reason of a line of the ledger begins whose item is in the set
# JPEGs do not compress further; one record a group, so that a record can be read alone.
WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Items `start` … `start` + len(items) − 1 of a part, to be written to a file."""

    part: str
    number: int
    start: int
    items: Sequence[Item]
    file: pathlib.Path
    note: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Note:
    """What a finished shard holds; the lists have an entry for each item in it."""

    ids: list[str]
    label: list[int]
    fps: list[float]
    count: list[int]
    promised: list[int]
    skips: list[skipped.Skip]
    bytes: int

    @property
    def records(self) -> int:
        """Number of records in the file."""
        return sum(-(-count // prepared.FRAMES_A_RECORD) for count in self.count)


def features(classes: Sequence[str]) -> tfds.features.FeaturesDict:
    """What a record holds. JPEG frames are plain bytes: TFDS's own image features need TensorFlow."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(classes)) if classes else np.int64,
            "fps": np.float32,
            "count": np.int64,
            "first": np.int64,
            "frames": tfds.features.Sequence(tfds.features.Text()),
        }
    )


def serialiser(classes: Sequence[str]) -> Callable[[dict[str, Any]], bytes]:
    """Record → bytes, as TFDS does it, but the same in every process: by itself protobuf orders keys by chance."""
    of_record = features(classes)
    specs: Any = of_record.get_serialized_info()
    to_proto = example_serializer.ExampleSerializer(specs).get_tf_example
    return lambda record: to_proto(of_record.encode_example(record)).SerializeToString(deterministic=True)


def cut(items: Sequence[Item]) -> Iterator[tuple[int, Sequence[Item]]]:
    """The stretches of a part's items that shards hold, with the number of each one's first item."""
    size = max(FEWEST_ITEMS, -(-len(items) // MOST_SHARDS))
    for start in range(0, len(items), size):
        yield start, items[start : start + size]


def read_note(shard: Shard) -> Note | None:
    """The note of a shard that is done; None for one that has to be written."""
    try:
        content = json.loads(shard.note.read_text(encoding="utf-8"))
        if shard.file.stat().st_size != content["bytes"]:
            return None
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return Note(**content | {"skips": [skipped.Skip(*skip) for skip in content["skips"]]})


def write(
    shard: Shard,
    tick: parallel.Tick,
    *,
    kind: Literal["videos", "images"],
    classes: Sequence[str],
    settings: frames.JpegSettings,
) -> None:
    """Writes a shard and its note; calls `tick` after each item.

    Raises:
        PrepareError: the disk is full or cannot be written.
    """
    note = Note([], [], [], [], [], [], 0)
    unfinished = shard.note.with_suffix(".array_record")
    try:
        writer = array_record_module.ArrayRecordWriter(os.fspath(unfinished), WRITER_OPTIONS)
        serialised = serialiser(classes)
        for number, item in enumerate(shard.items, start=shard.start):
            try:
                jpegs = frames.of_item(item, kind, settings)
            except decode.DecodeError as error:
                if not os.path.isfile(item.path):  # it was there when the job began: not this item's fault
                    raise PrepareError(
                        f"{item.path} is gone; is the source still there? Start again to go on."
                    ) from error
                note.skips.append(skipped.Skip(shard.part, number, error.path, error.reason))
            else:
                for record in _records(item, jpegs):
                    writer.write(serialised(record))
                if jpegs.remark:
                    note.skips.append(skipped.Skip(shard.part, number, item.path, f"{KEPT}{jpegs.remark}"))
                note.ids.append(item.id)
                note.label.append(item.label)
                note.fps.append(jpegs.fps)
                note.count.append(len(jpegs.frames))
                note.promised.append(jpegs.promised)
            tick()
        writer.close()
        note = dataclasses.replace(note, bytes=unfinished.stat().st_size)
        os.replace(unfinished, shard.file)
        write_text(shard.note, json.dumps(dataclasses.asdict(note)))
    except (RuntimeError, OSError) as error:  # ArrayRecord's errors are RuntimeErrors, a full disk's among them
        unfinished.unlink(missing_ok=True)
        raise PrepareError(f"{shard.file} cannot be written: {error}") from error


def _records(item: Item, jpegs: frames.Jpegs) -> Iterator[dict[str, Any]]:
    for first in range(0, len(jpegs.frames), prepared.FRAMES_A_RECORD):
        yield {
            "id": item.id,
            "label": item.label,
            "fps": jpegs.fps,
            "count": len(jpegs.frames),
            "first": first,
            "frames": jpegs.frames[first : first + prepared.FRAMES_A_RECORD],
        }


def write_text(file: pathlib.Path, text: str) -> None:
    """A file that is there whole or not at all."""
    unfinished = file.with_name(file.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, file)
