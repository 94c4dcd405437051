"""Features on disk, computed once: a folder for each encoder, set of clips and kind of features.

The folder's name ends in a hash of everything that determines the features: the encoder's parameters and settings, the
clips and their preprocessing, the kind of features and their storage dtype. `key.json` has all of it. Features that are
computed in another way therefore have another folder. Rows are appended in the order of the clips, and `progress.json`
has their number; after an interruption the next job resumes from there. `clips.csv` names the clip of each row.
"""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from jepa_jax.evaluation.features.storage import FeatureSpec, Quantized, StorageDtype
from jepa_jax.files import ownership
from jepa_jax.files.aligned import aligned_empty
from jepa_jax.files.paths import write_text

VERSION = 3  # of how features are computed and stored; raise it to invalidate every cached feature
KEY, PROGRESS, LOCK, INDEX = "key.json", "progress.json", "lock.json", "clips.csv"


class Entry:
    """Features of one kind, of one set, by one encoder: rows are appended, committed, and read once complete.

    Attributes:
        folder: where the files are.
        storage_dtype: of the values.
        clips: number of the set's rows processed so far, undecodable ones included; also the next row to encode.
        rows: number of rows that have features.
        complete: whether every row has been processed.
        skips: undecodable clips, as JSON.
        seconds: spent on these features so far.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        key: Mapping[str, Any],
        spec: FeatureSpec,
        capacity: int,
        tasks: Sequence[str],
        origin: str = "",
    ):
        """Opens an entry, or creates it.

        Args:
            folder: of this entry alone; need not exist.
            key: everything that determines the features, as JSON.
            spec: shape and storage of a row.
            capacity: the largest number of rows.
            tasks: names of each row's labels.
            origin: where the encoder comes from, for people and for `Cache.remove_stale`.

        Raises:
            OSError: the disk has too little free space for the entry.
        """
        self.folder, self.storage_dtype, self._capacity = folder, spec.storage_dtype, capacity
        self._key, self._origin = json.loads(json.dumps(key)), origin  # as JSON reads it back: lists, not tuples
        self._specs = spec.arrays | {"row": (np.int32, ())} | {f"label-{task}": (np.int32, ()) for task in tasks}
        self.clips = self.rows = 0
        self.complete, self.skips, self.seconds = False, [], 0.0
        self._arrays: dict[str, np.memmap] = {}
        if (folder / PROGRESS).exists():
            try:
                self._open()
                return
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"Features in {folder} cannot be used ({error}); computing them again.", file=sys.stderr)
        self._start()

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes rows: the arrays of `storage.encode_rows`, `row` and `label-TASK`, all of the same length."""
        end = self.rows + len(arrays["row"])
        for name, values in arrays.items():
            self._arrays[name][self.rows : end] = values
        self.rows = end

    def commit(self, complete: bool = False) -> None:
        """Writes all appended rows to disk, so that they survive a crash."""
        for array in self._arrays.values():
            array.flush()
        self.complete = complete
        names = ("clips", "rows", "complete", "skips", "seconds")
        _write(self.folder / PROGRESS, {name: getattr(self, name) for name in names})

    def write_index(self, names: Sequence[str], views: int, classes: Mapping[str, Sequence[str]]) -> None:
        """Writes clips.csv, a line for each row of features: its clip, its view and its class in each task.

        Args:
            names: of the set's clips.
            views: number of rows of a clip.
            classes: names of each task's classes.
        """
        label_of = {task: self.column(f"label-{task}").tolist() for task in classes}
        part = self.folder / f"{INDEX}.part"
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("clip", "view", *classes))
            for i, row in enumerate(self.column("row").tolist()):
                labels = (label_of[task][i] for task in classes)
                named = ("" if label < 0 else classes[task][label] for task, label in zip(classes, labels, strict=True))
                writer.writerow((names[row // views], row % views, *named))
        part.replace(self.folder / INDEX)

    def features(self, memory_limit: int) -> np.ndarray | Quantized:
        """Features [rows, *shape]: loaded if they take at most `memory_limit` bytes as float16, else on disk."""
        code = self._arrays["features"][: self.rows]
        stored = code if self.storage_dtype == "float16" else Quantized(code, self._arrays["range"][: self.rows])
        if stored.nbytes > memory_limit:
            return stored
        loaded = aligned_empty(stored.shape, np.float16)
        for first in range(0, self.rows, 1024):
            loaded[first : first + 1024] = stored[first : first + 1024]
        return loaded

    def column(self, name: str) -> Int[np.ndarray, "n"]:
        """`row` (the number of each row in the set) or `label-TASK`, int32 [rows]."""
        return np.array(self._arrays[name][: self.rows])

    def _open(self) -> None:
        if _read_key(self.folder)["key"] != self._key:
            raise ValueError(f"{KEY} describes other features")
        progress = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
        if not 0 <= progress["rows"] <= progress["clips"] <= self._capacity:
            raise ValueError(f"{PROGRESS} has {progress['rows']} rows of {progress['clips']} clips")
        for name, (dtype, shape) in self._specs.items():
            array = np.lib.format.open_memmap(self.folder / f"{name}.npy", mode="r" if progress["complete"] else "r+")
            if array.dtype != dtype or array.shape != (self._capacity, *shape):
                raise ValueError(f"{name}.npy is {array.dtype} {array.shape}")
            self._arrays[name] = array
        self.clips, self.rows, self.complete = progress["clips"], progress["rows"], progress["complete"]
        self.skips, self.seconds = progress["skips"], progress["seconds"]

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / PROGRESS).unlink(missing_ok=True)
        for name, (dtype, shape) in self._specs.items():
            file = self.folder / f"{name}.npy"
            self._arrays[name] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=(self._capacity, *shape))
            # Space is reserved now: a disk that fills up under a memory map kills the process without an error.
            if hasattr(os, "posix_fallocate"):
                try:
                    with file.open("r+b") as opened:
                        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
                except OSError:
                    file.unlink()  # frees what was reserved
                    raise
        _write(self.folder / KEY, {"origin": self._origin, "key": self._key})
        self.commit()


@dataclasses.dataclass(frozen=True)
class Cache:
    """Folder of cached features.

    Attributes:
        folder: of all entries.
        storage_dtype: of all-token features; pooled ones are float16.
        memory_limit: bytes; a set's features of at most this size are loaded into memory.
        keep: "auto" caches all-token features if the disk has space, "cache" raises if it has not, "on_the_fly" never
            caches them.
    """

    folder: pathlib.Path
    storage_dtype: StorageDtype = "float16"
    memory_limit: int = 4 * 2**30
    keep: Literal["auto", "cache", "on_the_fly"] = "auto"

    def path(self, kind: str, key: Mapping[str, Any]) -> pathlib.Path:
        """Folder of the entry with this key."""
        return self.folder / f"{kind}-{_digest(key)[:20]}"

    def missing_bytes(self, path: pathlib.Path, spec: FeatureSpec, rows: int) -> int:
        """Bytes that this entry still needs on disk; 0 once it exists."""
        return 0 if (path / PROGRESS).is_file() else spec.row_bytes * rows

    def free_bytes(self) -> int:
        """Free bytes on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    @contextlib.contextmanager
    def locked(self, paths: Sequence[pathlib.Path]) -> Iterator[None]:
        """Locks these entries against other jobs; waits while another job holds one."""
        with contextlib.ExitStack() as stack:
            for path in sorted(paths):  # the same order in every job prevents a deadlock
                stack.enter_context(ownership.owned(path / LOCK, f"The feature folder {path}", wait=True))
            yield

    def remove_stale(self, key: Mapping[str, Any], origin: str) -> None:
        """Deletes, with a message, features by a checkpoint of this `origin` that had other parameters."""
        wanted = json.loads(json.dumps(key))
        for path, entry in self._entries():
            if (
                origin
                and entry["origin"] == origin
                and entry["key"] != wanted
                and _without_params(entry["key"]) == _without_params(wanted)
            ):
                _remove(path, f"Checkpoint {origin} has changed; deleting its stale features in {path}.")

    def remove_other_checkpoints(self, run: str, params: str) -> None:
        """Deletes features by a run's checkpoints, except those whose parameters have the fingerprint `params`."""
        for path, entry in self._entries():
            if entry["origin"].startswith(f"{run}:") and entry["key"]["encode"].get("params") != params:
                _remove(path)

    def _entries(self) -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
        """Folders, each with the content of its key.json."""
        for file in sorted(self.folder.glob(f"*/{KEY}")):
            with contextlib.suppress(OSError, ValueError):  # another job is writing or deleting it
                yield file.parent, _read_key(file.parent)


def _remove(path: pathlib.Path, message: str = "") -> None:
    """Deletes an entry, unless another job holds it."""
    try:
        with ownership.owned(path / LOCK, f"The feature folder {path}"):
            if message:
                print(message, file=sys.stderr)
            shutil.rmtree(path)
    except ownership.HeldError as error:
        print(f"Not deleted: {error}", file=sys.stderr)


def _without_params(key: Mapping[str, Any]) -> dict[str, Any]:
    encode = {name: value for name, value in key["encode"].items() if name != "params"}
    return {**key, "encode": encode}


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _read_key(folder: pathlib.Path) -> dict[str, Any]:
    content = json.loads((folder / KEY).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.keys() != {"origin", "key"}:
        raise ValueError(f"{KEY} does not have the fields origin and key")
    return content


def _write(file: pathlib.Path, content: Any) -> None:
    """Writes the whole file, or if killed leaves the previous one."""
    write_text(file, json.dumps(content, indent=1) + "\n")
