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
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import simplejpeg
from jaxtyping import Float64, Int32, Int64, Shaped, UInt8

from jepa_jax.data import decode, stages

FRAMES_A_RECORD = 32
SETS = ("ucf101", "something_something_v2", "diving48", "imagenet100", "folder")  # what can be prepared
FORMAT = 1
DESCRIPTION_FILE = "prepared.json"
PLAN_FILE = "preparing/plan.json"  # in the folder that is there while a set is being made


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
    """What is known of items without opening their records."""

    ids: Strings  # as the source named them
    label_I: Int32[np.ndarray, "I"]
    fps_I: Float64[np.ndarray, "I"]
    count_I: Int32[np.ndarray, "I"]  # frames
    promised_I: Int32[np.ndarray, "I"]  # frames that the video's packets promised, sometimes more than there are

    def save(self, file: pathlib.Path) -> None:
        """Writes the arrays to an .npz file."""
        ids = {"text": self.ids.text, "starts": self.ids.starts, "ends": self.ids.ends}
        np.savez(file, allow_pickle=False, **ids, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, file: pathlib.Path) -> "Index":
        """Reads what `save` wrote."""
        with np.load(file) as saved:
            ids = Strings(saved["text"], saved["starts"], saved["ends"])
            return cls(ids, **{name: saved[name] for name in _ARRAYS})

    @classmethod
    def joined(cls, several: Sequence["Index"]) -> "Index":
        """The items of several, one after another."""
        arrays = {name: np.concatenate([getattr(index, name) for index in several]) for name in _ARRAYS}
        return cls(Strings.joined([index.ids for index in several]), **arrays)

    def select(self, items: Int64[np.ndarray, "some"]) -> "Index":
        """Some of the items."""
        return Index(self.ids.select(items), **{name: getattr(self, name)[items] for name in _ARRAYS})

    def first_records(self) -> Int64[np.ndarray, "I"]:
        """The number of each item's first record, where these are all items of a part in order."""
        record_count_I = -(-self.count_I.astype(np.int64) // FRAMES_A_RECORD)
        return np.cumsum(record_count_I) - record_count_I


_ARRAYS = tuple(field.name for field in dataclasses.fields(Index) if field.name != "ids")


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """Items of a prepared set, part after part, each part in the order of its records."""

    folder: str
    kind: Literal["videos", "images"]
    classes: tuple[str, ...]
    index: Index
    parts: tuple[str, ...]
    part_I: Int32[np.ndarray, "I"]  # the part of each item, an index into `parts`
    record_I: Int64[np.ndarray, "I"]  # the item's first record within its part

    def select(self, items: Int64[np.ndarray, "some"]) -> "PreparedSet":
        """Some of the items."""
        return dataclasses.replace(
            self, index=self.index.select(items), part_I=self.part_I[items], record_I=self.record_I[items]
        )

    def read_clip(
        self,
        item: int,
        choose: decode.Choose,
        transform: decode.Transform = decode.whole,
        switch: stages.Switch = stages.unwatched,
        out: np.ndarray | None = None,
    ) -> Shaped[np.ndarray, "F _ _ 3"]:
        """The frames that `choose(frame count, fps)` asks for; all arguments are as in `decode.read_clip`.

        Only their records are read and only they are decoded. What is asked is what `decode.read_clip` asks of the
        video itself, so that the indices are the same.

        Raises:
            DecodeError: a damaged record or frame.
        """
        count, fps = int(self.index.count_I[item]), float(self.index.fps_I[item])
        wanted = choose(int(self.index.promised_I[item]), fps)
        if wanted[-1] >= count:
            wanted = choose(count, fps)
        numbers = np.unique(wanted).tolist()
        frames = {i: transform(frame_YxXxC) for i, frame_YxXxC in self._frames(item, numbers, switch)}
        return np.stack([frames[i] for i in wanted.tolist()], out=out)

    def read_image(self, item: int) -> UInt8[np.ndarray, "Y X 3"]:
        """A still image.

        Raises:
            DecodeError: a damaged record or image.
        """
        return next(self._frames(item, [0], stages.unwatched))[1]

    def _frames(
        self, item: int, numbers: Sequence[int], switch: stages.Switch
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "Y X 3"]]]:
        """Frames by number; a record is opened once for all of its frames."""
        first_record, part = int(self.record_I[item]), self.parts[self.part_I[item]]
        opened, jpegs = -1, []
        try:
            for i in numbers:
                if i // FRAMES_A_RECORD != opened:
                    opened = i // FRAMES_A_RECORD
                    switch(stages.READ)
                    jpegs = records(self.folder, part)[first_record + opened]["frames"]
                    switch(stages.DECODE)
                yield i, decode_jpeg(jpegs[i % FRAMES_A_RECORD])
        except (RuntimeError, ValueError, IndexError) as error:
            path = f"{self.folder}/{self.index.ids[item]}"
            raise decode.DecodeError(path, f"damaged in the prepared set: {error}") from error


def decode_jpeg(jpeg: bytes) -> UInt8[np.ndarray, "Y X 3"]:
    """A frame as RGB.

    Raises:
        ValueError: it is damaged.
    """
    return simplejpeg.decode_jpeg(jpeg, "RGB")


@functools.cache
def records(folder: str, part: str) -> Any:
    """The records of a part by number, as TFDS gives them.

    Each is a dict of id, label, fps, count, first (its first frame's number), frames.
    Opened once a process: a set may go to worker processes without its open files.
    """
    import tensorflow_datasets as tfds  # takes a second or two, for which raw files need not wait

    builder = tfds.builder_from_directory(folder)
    return builder.as_data_source(split=part)  # pyright: ignore[reportCallIssue]


def command(name: str, folder: str) -> str:
    """The command that makes a prepared set."""
    return f"python -m jepa_jax.prepare {name} --source RAW --out {folder}"


def is_prepared(path: pathlib.Path) -> bool:
    """Whether a folder holds a prepared set, complete or not."""
    return (path / DESCRIPTION_FILE).is_file() or (path / PLAN_FILE).is_file()


def describe(folder: pathlib.Path) -> dict[str, Any]:
    """How a prepared set was made: the content of its prepared.json.

    Raises:
        NotPreparedError: the set is not complete, or was written by another version of the format.
    """
    if not (folder / DESCRIPTION_FILE).is_file():
        unfinished = "is not completely prepared: start the same command again, it goes on where it was"
        missing = f"is no prepared set (it has no {DESCRIPTION_FILE})"
        raise NotPreparedError(
            f"{folder} {unfinished if (folder / PLAN_FILE).is_file() else missing}. {command('SET', str(folder))}"
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
        kind=description["kind"],
        classes=tuple(description["classes"]),
        index=Index.joined(indices),
        parts=parts,
        part_I=np.repeat(np.arange(len(parts), dtype=np.int32), [len(index.ids) for index in indices]),
        record_I=np.concatenate([index.first_records() for index in indices]),
    )
