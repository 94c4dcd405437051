"""Datasets prepared by `python -m jepa_jax.prepare`: JPEG frames in ArrayRecord files, as a TFDS dataset.

A record holds up to 32 consecutive frames of one item, so reading a clip opens one or two records rather than the whole
video. Metadata (id, label, frames per second, number of frames) is in one index file of numpy arrays per part. Parts
are the disjoint TFDS splits of the dataset; a split ("train", "test", …) consists of one or more parts.

    SET/prepared.json        settings, splits and classes; written last, so it exists only in a complete set
    SET/index-PART.npz       an `Index`
    SET/notes/PART-….json    inputs of each shard, from which `prepare` detects changed files
    SET/NAME-PART.array_record-…, dataset_info.json, features.json   the dataset, as TFDS reads it
"""

import dataclasses
import functools
import io
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import simplejpeg
from jaxtyping import Float64, Int32, Int64, Shaped, UInt8

from jepa_jax.data import faults
from jepa_jax.data.decode import crops, jpeg_crop, videos
from jepa_jax.data.listing import names
from jepa_jax.data.sources import frame_records
from jepa_jax.data.sources.strings import Strings
from jepa_jax.data.workers import timing
from jepa_jax.files.remote.any_path import AnyPath

FRAMES_A_RECORD = 32
SETS = (
    "ucf101",
    "something_something_v2",
    "diving48",
    "imagenet100",
    "folder",
)  # names of the datasets that `prepare` supports
FORMAT = 1
DESCRIPTION_FILE = "prepared.json"
PLAN_FILE = "preparing/plan.json"  # exists while a set is being prepared


class NotPreparedError(ValueError):
    """A folder is not a complete prepared set, or lacks the requested split."""


@dataclasses.dataclass(frozen=True)
class Index:
    """Metadata of items, available without opening their records."""

    ids: Strings  # as in the original dataset
    label_I: Int32[np.ndarray, "I"]
    fps_I: Float64[np.ndarray, "I"]
    count_I: Int32[np.ndarray, "I"]  # frames
    nominal_I: Int32[np.ndarray, "I"]  # frames according to the video's table or packets; some may not decode

    def save(self, file: pathlib.Path | io.BytesIO) -> None:
        """Writes the arrays as an .npz file."""
        ids = {"text": self.ids.text, "starts": self.ids.starts, "ends": self.ids.ends}
        np.savez(file, allow_pickle=False, **ids, **{key: getattr(self, name) for name, key in _ARRAYS.items()})

    @classmethod
    def load(cls, file: pathlib.Path) -> "Index":
        """Loads a file written by `save`."""
        with np.load(file) as saved:
            ids = Strings(saved["text"], saved["starts"], saved["ends"])
            return cls(ids, **{name: saved[key] for name, key in _ARRAYS.items()})

    @classmethod
    def concatenate(cls, several: Sequence["Index"]) -> "Index":
        """Concatenates the items of several indices."""
        arrays = {name: np.concatenate([getattr(index, name) for index in several]) for name in _ARRAYS}
        return cls(Strings.concatenate([index.ids for index in several]), **arrays)

    def select(self, items: Int64[np.ndarray, "some"]) -> "Index":
        """Returns a subset of the items."""
        return Index(self.ids.select(items), **{name: getattr(self, name)[items] for name in _ARRAYS})

    def first_records(self) -> Int64[np.ndarray, "I"]:
        """The number of each item's first record; the index must contain all items of a part in order."""
        record_count_I = -(-self.count_I.astype(np.int64) // FRAMES_A_RECORD)
        return np.cumsum(record_count_I) - record_count_I


# Field of `Index` → its key in the file. Format 1 has an older name for one of them.
_ARRAYS = {field.name: field.name for field in dataclasses.fields(Index) if field.name != "ids"}
_ARRAYS["nominal_I"] = "promised_I"


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """Items of a prepared set, ordered by part and then by record."""

    folder: str
    kind: Literal["videos", "images"]
    classes: tuple[str, ...]
    index: Index
    parts: tuple[str, ...]
    part_I: Int32[np.ndarray, "I"]  # the part of each item, an index into `parts`
    record_I: Int64[np.ndarray, "I"]  # the item's first record within its part

    def select(self, items: Int64[np.ndarray, "some"]) -> "PreparedSet":
        """Returns a subset of the items."""
        return dataclasses.replace(
            self, index=self.index.select(items), part_I=self.part_I[items], record_I=self.record_I[items]
        )

    def read_clip(
        self,
        item: int,
        select_frames: videos.SelectFrames,
        transform: videos.Transform = videos.unchanged,
        on_stage: timing.OnStage = timing.no_op,
        out: np.ndarray | None = None,
    ) -> Shaped[np.ndarray, "F _ _ 3"]:
        """Decodes the frames that `select_frames(frame count, fps)` returns; arguments are as in `videos.read_clip`.

        Reads only the records of these frames. Calls `select_frames` with the same arguments as `videos.read_clip` on
        the original video, so that the indices are the same.

        Raises:
            DecodeError: a record or frame is damaged.
        """
        count, fps = int(self.index.count_I[item]), float(self.index.fps_I[item])
        wanted = select_frames(int(self.index.nominal_I[item]), fps)
        if wanted[-1] >= count:
            wanted = select_frames(count, fps)
        numbers = np.unique(wanted).tolist()
        decode = decode_jpeg
        if isinstance(transform, crops.CropTransform):
            decode, transform = functools.partial(jpeg_crop.decode_box, box_of=transform.box), transform.of_crop
        frames = {i: transform(image_YxXxC) for i, image_YxXxC in self._frames(item, numbers, on_stage, decode)}
        return np.stack([frames[i] for i in wanted.tolist()], out=out)

    def read_image(self, item: int) -> UInt8[np.ndarray, "Y X 3"]:
        """Decodes a still image.

        Raises:
            DecodeError: the record or image is damaged.
        """
        return next(self._frames(item, [0], timing.no_op, decode_jpeg))[1]

    def _frames(
        self, item: int, numbers: Sequence[int], on_stage: timing.OnStage, decode: Callable[[bytes], np.ndarray]
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "_ _ 3"]]]:
        """Yields (number, frame as decoded by `decode`); each record is opened once."""
        first_record, part = int(self.record_I[item]), self.parts[self.part_I[item]]
        opened, jpegs = -1, []
        with faults.as_decode_error(f"{self.folder}/{self.index.ids[item]}", "damaged in the prepared set: "):
            for i in numbers:
                if i // FRAMES_A_RECORD != opened:
                    opened = i // FRAMES_A_RECORD
                    on_stage(timing.READ)
                    record = records(self.folder, part)[first_record + opened]
                    if names.from_bytes(record["id"]) != self.index.ids[item]:
                        raise ValueError("the set has been prepared again since it was opened; restart this job")
                    jpegs = record["frames"]
                    on_stage(timing.DECODE)
                yield i, decode(jpegs[i % FRAMES_A_RECORD])


def decode_jpeg(jpeg: bytes) -> UInt8[np.ndarray, "Y X 3"]:
    """Decodes a frame to RGB.

    Raises:
        ValueError: the JPEG is damaged.
    """
    return simplejpeg.decode_jpeg(jpeg, "RGB")


@functools.cache
def records(folder: str, part: str) -> frame_records.FrameRecords:
    """The records of a part.

    Cached per process, so that a `PreparedSet` holds no open files and can be pickled to workers.
    """
    return frame_records.FrameRecords(folder, part)


def command(name: str, folder: str) -> str:
    """The command that prepares a dataset."""
    return f"python -m jepa_jax.prepare {name} --source RAW --out {folder}"


def is_prepared(path: pathlib.Path) -> bool:
    """Whether a folder holds a prepared set, complete or not."""
    return (path / DESCRIPTION_FILE).is_file() or (path / PLAN_FILE).is_file()


def describe(folder: AnyPath) -> dict[str, Any]:
    """Reads the description of a prepared set, its prepared.json.

    Raises:
        NotPreparedError: the set is incomplete or has another format version.
    """
    if not (folder / DESCRIPTION_FILE).is_file():
        unfinished = "is not completely prepared; run the same command again to resume."
        missing = f"is not a prepared set (it has no {DESCRIPTION_FILE})."
        raise NotPreparedError(
            f"{folder} {unfinished if (folder / PLAN_FILE).is_file() else missing} {command('SET', str(folder))}"
        )
    description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    if description.get("format") != FORMAT:
        raise NotPreparedError(
            f"{folder} has format {description.get('format')}; this version reads format {FORMAT}. Prepare it again."
        )
    return description


def open_set(folder: str, split: str, fold: int = 1) -> PreparedSet:
    """Opens a split of a prepared set; reads its description and index but no records.

    Args:
        folder: folder of the set.
        split: "train", "test" or another split of the set.
        fold: number of the official train/test split, if the set has several (UCF-101: 1 to 3).

    Raises:
        NotPreparedError: as `describe`; or the split or fold does not exist; or a label is not a valid class.
    """
    description = describe(pathlib.Path(folder))
    if not names.is_utf8(os.path.abspath(folder)):
        raise NotPreparedError(f"the path {folder} is not UTF-8, which the files of a prepared set need; rename it.")
    splits: dict[str, list[list[str]]] = description["splits"]  # split → fold → parts
    if split not in splits:
        raise NotPreparedError(f"split is {split!r}; {folder} has {', '.join(map(repr, splits))}.")
    folds = splits[split]
    if not 1 <= fold <= len(folds):
        has = f"the folds 1 to {len(folds)}" if len(folds) > 1 else "one fold only, 1"
        raise NotPreparedError(f"fold is {fold}; {folder} has {has}.")
    parts = tuple(folds[fold - 1])
    indices = [Index.load(pathlib.Path(folder) / f"index-{part}.npz") for part in parts]
    classes, index = tuple(description["classes"]), Index.concatenate(indices)
    invalid = index.label_I[(index.label_I < -1) | (index.label_I >= len(classes))]
    if len(invalid):
        raise NotPreparedError(
            f"{folder} is damaged: its index has the label {invalid[0]}, which is not among the {len(classes)} of "
            f"{DESCRIPTION_FILE}. Prepare it again."
        )
    return PreparedSet(
        folder=folder,
        kind=description["kind"],
        classes=classes,
        index=index,
        parts=parts,
        part_I=np.repeat(np.arange(len(parts), dtype=np.int32), [len(index.ids) for index in indices]),
        record_I=np.concatenate([index.first_records() for index in indices]),
    )
