"""Sets prepared by `python -m jepa_jax.prepare`: JPEG frames in ArrayRecord files, a TFDS dataset in a folder.

A record holds up to 32 consecutive frames of one item, so a clip opens one or two records and not the whole video. What
is known of an item without opening a record (id, label, frames a second, number of frames) stands in one index file a
part, numpy arrays only. Parts are the dataset's TFDS splits, disjoint; a split ("train", "test") names one or more.

    SET/prepared.json        how the set was made, its splits and classes; written last, so its presence says "complete"
    SET/index-PART.npz       an `Index`
    SET/NAME-PART.array_record-…, dataset_info.json, features.json   the dataset, as TFDS reads it
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from jaxtyping import Float64, Int, Int32, Int64, Shaped, UInt8

from jepa_jax.data import decode, stages

FRAMES_A_RECORD = 32
SETS = ("ucf101", "something_something_v2", "diving48", "imagenet100", "folder")  # what can be prepared
FORMAT = 1
DESCRIPTION_FILE = "prepared.json"
WORK_FOLDER = "preparing"  # there while a set is being made


class NotPreparedError(ValueError):
    """A folder that is no complete prepared set, or lacks the split asked for: says which and what would be right."""


class Strings(Sequence[str]):
    """Strings in three arrays: hundreds of thousands of names without as many objects."""

    def __init__(
        self,
        text: UInt8[np.ndarray, "bytes"],
        starts: Int64[np.ndarray, "items"],
        ends: Int64[np.ndarray, "items"],
        prefix: str = "",
    ):
        """String i is `prefix` and then, in UTF-8, what stands in `text` from `starts[i]` to `ends[i]`."""
        self.text = text
        self.starts = starts
        self.ends = ends
        self.prefix = prefix

    @classmethod
    def of(cls, strings: Sequence[str]) -> "Strings":
        """These strings."""
        encoded = [string.encode() for string in strings]
        ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)
        starts = ends - np.array([len(string) for string in encoded], np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, ends)

    @classmethod
    def joined(cls, several: Sequence["Strings"]) -> "Strings":
        """The strings of several, without their prefixes."""
        offsets = np.cumsum([0, *(len(strings.text) for strings in several)])
        return cls(
            np.concatenate([strings.text for strings in several]),
            np.concatenate([strings.starts + offset for strings, offset in zip(several, offsets[:-1], strict=True)]),
            np.concatenate([strings.ends + offset for strings, offset in zip(several, offsets[:-1], strict=True)]),
        )

    def select(self, items: Int64[np.ndarray, "some"]) -> "Strings":
        """Some of the strings."""
        return Strings(self.text, self.starts[items], self.ends[items], self.prefix)

    def below(self, prefix: str) -> "Strings":
        """The same strings with another prefix."""
        return Strings(self.text, self.starts, self.ends, prefix)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        return self.prefix + self.text[self.starts[item] : self.ends[item]].tobytes().decode()


@dataclasses.dataclass(frozen=True)
class Index:
    """What is known of the items of a part, in the order of their records."""

    ids: Strings
    label_I: Int32[np.ndarray, "I"]
    fps_I: Float64[np.ndarray, "I"]
    count_I: Int32[np.ndarray, "I"]  # frames

    def save(self, file: pathlib.Path) -> None:
        """Writes the arrays to an .npz file."""
        arrays = {"text": self.ids.text, "starts": self.ids.starts, "ends": self.ids.ends}
        arrays |= {"label": self.label_I, "fps": self.fps_I, "count": self.count_I}
        np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: pathlib.Path) -> "Index":
        """Reads what `save` wrote."""
        with np.load(file) as arrays:
            ids = Strings(arrays["text"], arrays["starts"], arrays["ends"])
            return cls(ids, arrays["label"], arrays["fps"], arrays["count"])

    def first_records(self) -> Int64[np.ndarray, "I"]:
        """The number of each item's first record."""
        record_count_I = -(-self.count_I.astype(np.int64) // FRAMES_A_RECORD)
        return np.cumsum(record_count_I) - record_count_I


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """Items of a prepared set, part after part, each part in the order of its records."""

    folder: str
    name: str
    kind: Literal["videos", "images"]
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    ids: Strings  # as the source named them
    label_I: Int32[np.ndarray, "I"]  # indices into `classes`
    fps_I: Float64[np.ndarray, "I"]
    count_I: Int32[np.ndarray, "I"]  # frames
    part_I: Int32[np.ndarray, "I"]  # indices into `parts`
    record_I: Int64[np.ndarray, "I"]  # the item's first record within its part

    def select(self, items: Int64[np.ndarray, "some"]) -> "PreparedSet":
        """Some of the items."""
        arrays = {name: getattr(self, name)[items] for name in ("label_I", "fps_I", "count_I", "part_I", "record_I")}
        return dataclasses.replace(self, ids=self.ids.select(items), **arrays)

    def read_clip(
        self,
        item: int,
        choose: decode.Choose,
        transform: decode.Transform = decode.whole,
        switch: stages.Switch = stages.unwatched,
    ) -> Shaped[np.ndarray, "F _ _ 3"]:
        """The frames that `choose(frame count, fps)` asks for; only their records are read, only they are decoded.

        `transform` and `switch` are as in `decode.read_clip`.

        Raises:
            DecodeError: a damaged record or frame.
        """
        return self._frames(item, choose(int(self.count_I[item]), float(self.fps_I[item])), transform, switch)

    def read_image(self, item: int) -> UInt8[np.ndarray, "Y X 3"]:
        """A still image.

        Raises:
            DecodeError: a damaged record or image.
        """
        return self._frames(item, np.zeros(1, np.int64), decode.whole, stages.unwatched)[0]

    def _frames(
        self, item: int, wanted: Int[np.ndarray, "F"], transform: decode.Transform, switch: stages.Switch
    ) -> Shaped[np.ndarray, "F _ _ 3"]:
        first_record, part = int(self.record_I[item]), self.parts[self.part_I[item]]
        frames, number, jpegs = {}, -1, []
        try:
            for i in np.unique(wanted).tolist():
                if i // FRAMES_A_RECORD != number:
                    number = i // FRAMES_A_RECORD
                    switch(stages.READ)
                    jpegs = records(self.folder, part)[first_record + number]["frames"]
                    switch(stages.DECODE)
                frames[i] = transform(decode_jpeg(jpegs[i % FRAMES_A_RECORD]))
        except (RuntimeError, ValueError, IndexError) as error:
            raise decode.DecodeError(f"{self.folder}/{self.ids[item]}", f"damaged records: {error}") from error
        return np.stack([frames[i] for i in wanted.tolist()])


def decode_jpeg(jpeg: bytes) -> UInt8[np.ndarray, "Y X 3"]:
    """A frame as RGB.

    Raises:
        ValueError: it is damaged.
    """
    return simplejpeg.decode_jpeg(jpeg, "RGB")


@functools.cache
def records(folder: str, part: str) -> Sequence[dict[str, Any]]:
    """The records of a part as TFDS gives them: id, label, fps, count, first (its first frame's number), frames.

    Opened once a process: a set may go to worker processes without its open files.
    """
    builder = tfds.builder_from_directory(folder)
    return builder.as_data_source(split=part)  # pyright: ignore[reportCallIssue]


def command(name: str, folder: str) -> str:
    """The command that makes a prepared set."""
    return f"python -m jepa_jax.prepare {name} --source RAW --out {folder}"


def is_prepared(path: pathlib.Path) -> bool:
    """Whether a folder holds a prepared set, complete or not."""
    return (path / DESCRIPTION_FILE).is_file() or (path / WORK_FOLDER).is_dir()


def describe(folder: pathlib.Path) -> dict[str, Any]:
    """How a prepared set was made: the content of its prepared.json.

    Raises:
        NotPreparedError: the set is not complete, or was written by another version of the format.
    """
    if not (folder / DESCRIPTION_FILE).is_file():
        unfinished = "is not completely prepared: start the same command again, it goes on where it was"
        missing = f"is no prepared set (it has no {DESCRIPTION_FILE})"
        raise NotPreparedError(
            f"{folder} {unfinished if (folder / WORK_FOLDER).is_dir() else missing}. {command('SET', str(folder))}"
        )
    description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    if description.get("format") != FORMAT:
        raise NotPreparedError(
            f"{folder} has format {description.get('format')}; this version reads format {FORMAT}. Prepare it anew."
        )
    return description


def open_set(folder: str, split: str, fold: int = 1) -> PreparedSet:
    """A split of a prepared set; reads its description and index, opens no record.

    Args:
        folder: of the set.
        split: "train", "test" or another that the set has.
        fold: which of several official train/test splits, where a set has them (UCF-101: 1 to 3).

    Raises:
        NotPreparedError: as `describe`; no such split or fold.
    """
    description = describe(pathlib.Path(folder))
    splits: dict[str, list[list[str]]] = description["splits"]  # split → fold → parts
    if split not in splits:
        raise NotPreparedError(f"split is {split!r}; {folder} has {', '.join(map(repr, splits))}.")
    folds = splits[split]
    if not 1 <= fold <= len(folds):
        has = f"the folds 1 to {len(folds)}" if len(folds) > 1 else "one fold only, 1"
        raise NotPreparedError(f"fold is {fold}; {folder} has {has}.")
    parts = tuple(folds[fold - 1])
    indices = [Index.load(pathlib.Path(folder) / f"index-{part}.npz") for part in parts]
    return PreparedSet(
        folder=folder,
        name=description["name"],
        kind=description["kind"],
        classes=tuple(description["classes"]),
        parts=parts,
        ids=Strings.joined([index.ids for index in indices]),
        label_I=np.concatenate([index.label_I for index in indices]),
        fps_I=np.concatenate([index.fps_I for index in indices]),
        count_I=np.concatenate([index.count_I for index in indices]),
        part_I=np.repeat(np.arange(len(parts), dtype=np.int32), [len(index.ids) for index in indices]),
        record_I=np.concatenate([index.first_records() for index in indices]),
    )
