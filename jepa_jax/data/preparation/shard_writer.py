"""Writing of shards: consecutive items of a part → one ArrayRecord file and a note on its content.

A shard depends only on its items and settings, so the bytes are the same with any number of workers and restarts. The
note is written after the file is renamed, so a shard with a note is complete. Two processes may write the same shard,
as when a machine does not respond and its work is repeated elsewhere: their unfinished files have different names, and
either result is the same. A shard of a remote set is written in TMPDIR and uploaded when it is complete. Notes are kept
in a complete set; they show which shards to rewrite after files have changed.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_datasets.core import example_serializer

from jepa_jax.data import faults, skipped_files
from jepa_jax.data.listing import names
from jepa_jax.data.preparation import frames
from jepa_jax.data.preparation.raw import Item, PrepareError
from jepa_jax.data.preparation.runners import parallel
from jepa_jax.data.sources import array_record
from jepa_jax.files.paths import is_remote
from jepa_jax.files.remote import any_path
from jepa_jax.files.remote.any_path import AnyPath
from jepa_jax.files.remote.connection import RemoteError
from jepa_jax.files.remote.remote_path import RemotePath

KEPT = "kept: "  # prefix of a ledger reason if the item is in the set
# JPEGs are compressed already. One record per group allows reading a single record.
WRITER_OPTIONS = "group_size:1,uncompressed"


class Stamp(NamedTuple):
    """State of an item when its shard was written. A file with another size or time counts as changed."""

    id: str
    label: int
    bytes: int  # of its file
    modified_ns: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """Items `start` … `start` + len(items) − 1 of a part and the file for them."""

    part: str
    number: int
    start: int
    items: Sequence[Item]
    stamps: Sequence[Stamp]  # of the items
    file: AnyPath
    note: AnyPath

    def __str__(self) -> str:
        return str(self.file)

    @property
    def unfinished(self) -> pathlib.Path:
        """The start of the names of its unfinished files, which are local; the same in all jobs of a user's machine."""
        if isinstance(self.note, pathlib.Path):
            return self.note.with_suffix("")
        folder = hashlib.sha256(str(self.note.parent).encode()).hexdigest()[:16]
        return pathlib.Path(tempfile.gettempdir()) / f"jepa_jax-{os.getuid()}-{folder}-{self.note.stem}"


@dataclasses.dataclass(frozen=True)
class Note:
    """Content of a finished shard. Lists have one entry per stored item; `stamps` includes skipped items."""

    file: str  # its name
    stamps: list[Stamp]
    ids: list[str]
    label: list[int]
    fps: list[float]
    count: list[int]
    promised: list[int]  # nominal frame counts (the key in existing notes)
    skips: list[skipped_files.Skip]
    bytes: int

    @property
    def records(self) -> int:
        """Number of records in the file."""
        return sum(-(-count // array_record.FRAMES_A_RECORD) for count in self.count)


def features(classes: Sequence[str]) -> tfds.features.FeaturesDict:
    """The TFDS features of a record. JPEG frames are plain bytes, since TFDS image features need TensorFlow.

    TFDS stores class names as lines of UTF-8, so they are escaped there; prepared.json has the original names.
    """
    label = tfds.features.ClassLabel(names=[names.printable(name) for name in classes]) if classes else np.int64
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "label": label,
            "fps": np.float32,
            "count": np.int64,
            "first": np.int64,
            "frames": tfds.features.Sequence(tfds.features.Text()),
        }
    )


def serializer(classes: Sequence[str]) -> Callable[[dict[str, Any]], bytes]:
    """Returns a function record → bytes: like TFDS, but deterministic, since protobuf map order varies by process."""
    of_record = features(classes)
    specs: Any = of_record.get_serialized_info()
    to_proto = example_serializer.ExampleSerializer(specs).get_tf_example
    return lambda record: to_proto(of_record.encode_example(record)).SerializeToString(deterministic=True)


def read_note(shard: Shard) -> Note | None:
    """Returns the note of a complete shard; None if the shard has to be written."""
    note = load_note(shard.note)
    if note is None or note.stamps != list(shard.stamps):
        return None
    try:
        size = shard.file.with_name(note.file).stat().st_size
    except FileNotFoundError:
        return None
    return note if size == note.bytes else None


def load_note(file: AnyPath) -> Note | None:
    """Reads a note; None if there is none or it is from an older version, without stamps."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if "stamps" not in content:
        return None
    stamps, skips = (
        [Stamp(*stamp) for stamp in content["stamps"]],
        [skipped_files.Skip(*skip) for skip in content["skips"]],
    )
    return Note(**content | {"stamps": stamps, "skips": skips})


def adopt(shard: Shard, note: Note) -> None:
    """Renames the file of a complete shard to its current name, which includes the number of shards."""
    if note.file != shard.file.name:
        any_path.move_file(shard.file.with_name(note.file), shard.file)
        write_text(shard.note, json.dumps(dataclasses.asdict(dataclasses.replace(note, file=shard.file.name))))


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
        PrepareError: the disk is full or cannot be written, or a remote path cannot be read or written.
    """
    note = Note(shard.file.name, list(shard.stamps), [], [], [], [], [], [], 0)
    token = uuid.uuid4().hex
    unfinished = shard.unfinished.with_name(f"{shard.unfinished.name}.{token}.array_record")
    try:
        writer = array_record_module.ArrayRecordWriter(os.fspath(unfinished), WRITER_OPTIONS)
        serialised = serializer(classes)
        for number, item in enumerate(shard.items, start=shard.start):
            try:
                jpegs = frames.of_item(item, kind, settings)
            except faults.DecodeError as error:
                # It existed at the start, so the source has become unavailable.
                if not is_remote(item.path) and not os.path.isfile(item.path):
                    raise PrepareError(
                        f"{item.path} no longer exists. Check the source and run the same command again."
                    ) from error
                note.skips.append(skipped_files.Skip(shard.part, number, error.path, error.reason))
            else:
                for record in _records(item, jpegs):
                    writer.write(serialised(record))
                if jpegs.remark:
                    note.skips.append(skipped_files.Skip(shard.part, number, item.path, f"{KEPT}{jpegs.remark}"))
                note.ids.append(item.id)
                note.label.append(item.label)
                note.fps.append(jpegs.fps)
                note.count.append(len(jpegs.frames))
                note.promised.append(jpegs.nominal_frames)
            tick()
        writer.close()
        note = dataclasses.replace(note, bytes=unfinished.stat().st_size)
        shard.note.unlink(missing_ok=True)  # describes the file about to be replaced
        any_path.publish(unfinished, shard.file)
        write_text(shard.note, json.dumps(dataclasses.asdict(note)), token)
    except RemoteError as error:
        unfinished.unlink(missing_ok=True)
        raise PrepareError(f"{error}. Run the same command again to resume.") from error
    except (RuntimeError, OSError) as error:  # ArrayRecord raises RuntimeError, also for a full disk
        unfinished.unlink(missing_ok=True)
        raise PrepareError(f"{shard.file} cannot be written: {error}") from error


def _records(item: Item, jpegs: frames.Jpegs) -> Iterator[dict[str, Any]]:
    for first in range(0, len(jpegs.frames), array_record.FRAMES_A_RECORD):
        yield {
            "id": names.to_bytes(item.id),
            "label": item.label,
            "fps": jpegs.fps,
            "count": len(jpegs.frames),
            "first": first,
            "frames": jpegs.frames[first : first + array_record.FRAMES_A_RECORD],
        }


def discard_unfinished(shards: Sequence[Shard]) -> None:
    """Removes the files that killed jobs left of shards without a note."""
    starts = {shard.unfinished for shard in shards}
    for folder in {start.parent for start in starts}:
        for file in folder.iterdir():
            found = re.fullmatch(r"(.+-\d+)\..*(array_record|new)", file.name)
            if found is not None and folder / found[1] in starts:
                file.unlink(missing_ok=True)


def count_records(file: pathlib.Path) -> int | None:
    """Number of records of a shard's file; None if it is damaged."""
    reader = array_record_module.ArrayRecordReader(os.fspath(file))
    count = reader.num_records()
    try:
        reader.close()
    except RuntimeError:
        return None
    return count


def write_text(file: AnyPath, text: str, token: str = "unfinished") -> None:
    """Writes a text file atomically. Processes that may write it at the same time need different tokens."""
    if isinstance(file, RemotePath):
        file.write_bytes(text.encode("utf-8", names.JSON_ERRORS))
        return
    unfinished = file.with_name(f"{file.name}.{token}.new")
    unfinished.write_text(text, encoding="utf-8", errors=names.JSON_ERRORS)
    os.replace(unfinished, file)
