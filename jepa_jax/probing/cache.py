"""Features on disk, to be computed once: a folder for each kind of feature of each set of clips by each encoder.

The folder's name ends in a hash of what made the features (`key.json` says it in full): the encoder's parameters and
settings, the clips and how they are preprocessed, the kind of feature and the form it is stored in. So what was made
otherwise has another name and is never taken for it. Rows are appended in the order of the clips, and `progress.json`
says how far they go; after an interruption the next job goes on from there.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

VERSION = 1  # of how features are computed and stored; a larger number makes all that lie on disks stale
KEY, PROGRESS, LOCK = "key.json", "progress.json", "lock"
STEPS = 254  # of the int8 code between a clip's smallest and largest value in a channel

Form = Literal["float16", "int8"]
Index = Int[np.ndarray, "B"] | slice


@dataclasses.dataclass(frozen=True)
class Layout:
    """Form of the features of one kind.

    Attributes:
        shape: of one row: (E,), (T, E) or (N, E).
        form: how values are stored.
    """

    shape: tuple[int, ...]
    form: Form

    @property
    def row_bytes(self) -> int:
        """What a row takes on disk."""
        return sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in self.arrays.values())

    @property
    def arrays(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Dtype and shape of a row in each of the files."""
        if self.form == "float16":
            return {"features": (np.float16, self.shape)}
        return {"features": (np.int8, self.shape), "range": (np.float32, (2, self.shape[-1]))}


def encode_rows(rows: Float[Array, "B *S E"], form: Form) -> dict[str, Shaped[Array, "B ..."]]:
    """Features in the form they are stored in; traceable.

    int8 divides the range of each channel within each clip into 254 steps, so that a channel of large values takes no
    precision from the others and no statistics are needed beforehand. The error is at most 1/508 of that range.
    """
    if form == "float16":
        return {"features": rows.astype(jnp.float16)}
    tokens_BxSxE = rows.astype(jnp.float32).reshape(rows.shape[0], -1, rows.shape[-1])
    low_Bx1xE, high_Bx1xE = tokens_BxSxE.min(1, keepdims=True), tokens_BxSxE.max(1, keepdims=True)
    middle_Bx1xE, step_Bx1xE = low_Bx1xE + (high_Bx1xE - low_Bx1xE) / 2, (high_Bx1xE - low_Bx1xE) / STEPS
    # A constant channel is its middle.
    code = jnp.round((tokens_BxSxE - middle_Bx1xE) / jnp.where(step_Bx1xE > 0, step_Bx1xE, 1))
    return {
        "features": code.astype(jnp.int8).reshape(rows.shape),
        "range": jnp.concatenate([middle_Bx1xE, step_Bx1xE], axis=1),
    }


class Quantised:
    """int8 features that read as float16 values: `rows[index]` decodes these rows."""

    def __init__(self, code: Shaped[np.ndarray, "n ..."], value_range: Float[np.ndarray, "n 2 E"]):
        """`code` and `value_range` as `encode_rows` makes them."""
        self._code, self._range = code, value_range
        self.shape = code.shape
        self.dtype = np.dtype(np.float16)
        self.nbytes = code.size * self.dtype.itemsize  # once decoded

    def __len__(self) -> int:
        return len(self._code)

    def __getitem__(self, index: Index) -> Float[np.ndarray, "B *S E"]:
        middle_Bx1xE, step_Bx1xE = np.split(self._range[index], 2, axis=1)
        code = self._code[index]
        tokens_BxSxE = code.reshape(len(code), -1, code.shape[-1]) * step_Bx1xE + middle_Bx1xE
        return tokens_BxSxE.reshape(code.shape).astype(np.float16)


class Entry:
    """The features of one kind of one set by one encoder: rows that are appended, committed, and read when complete.

    Attributes:
        form: how the values are stored.
        clips: how many of the set's rows have been dealt with, undecodable ones included; the next to encode.
        rows: how many have features.
        complete: nothing is left to do.
        skips: undecodable clips, as JSON.
        seconds: spent on it so far.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        key: Mapping[str, Any],
        layout: Layout,
        rows: int,
        tasks: Sequence[str],
        origin: str = "",
    ):
        """Opens an entry, or starts it.

        Args:
            folder: of this entry alone; may not exist yet.
            key: what makes the features what they are.
            origin: where the encoder came from, for people and for `Cache.remove_stale`.
            layout: their form.
            rows: at most this many come.
            tasks: names of the labels each row has.

        Raises:
            OSError: less room on the disk than the entry needs.
        """
        self.folder, self.form, self._room = folder, layout.form, rows
        # As it reads back from JSON.
        self._key, self._origin = json.loads(json.dumps(key)), origin
        self._forms = layout.arrays | {"row": (np.int32, ())} | {f"label-{task}": (np.int32, ()) for task in tasks}
        self.clips = self.rows = 0
        self.complete, self.skips, self.seconds = False, [], 0.0
        self._arrays: dict[str, np.memmap] = {}
        if (folder / PROGRESS).exists():
            try:
                self._open()
                return
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"Features in {folder} cannot be used ({error}) and are computed anew.", file=sys.stderr)
        self._start()

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes rows: the arrays of `encode_rows`, `row` and `label-TASK`, all of one length."""
        end = self.rows + len(arrays["row"])
        for name, values in arrays.items():
            self._arrays[name][self.rows : end] = values
        self.rows = end

    def commit(self, complete: bool = False) -> None:
        """Makes what was appended outlast a crash."""
        for array in self._arrays.values():
            array.flush()
        self.complete = complete
        names = ("clips", "rows", "complete", "skips", "seconds")
        _write(self.folder / PROGRESS, {name: getattr(self, name) for name in names})

    def features(self, memory_limit: int) -> "np.ndarray | Quantised":
        """The features [rows, *shape]: in memory if they take at most `memory_limit` bytes as float16."""
        code = self._arrays["features"][: self.rows]
        stored = code if self.form == "float16" else Quantised(code, self._arrays["range"][: self.rows])
        if stored.nbytes > memory_limit:
            return stored
        loaded = aligned_empty(stored.shape, np.float16)
        for first in range(0, self.rows, 1024):
            loaded[first : first + 1024] = stored[first : first + 1024]
        return loaded

    def column(self, name: str) -> Int[np.ndarray, "n"]:
        """`row`, the number of each row in the set, or `label-TASK`."""
        return np.array(self._arrays[name][: self.rows])

    def _open(self) -> None:
        if _read_key(self.folder)["key"] != self._key:
            raise ValueError(f"{KEY} is of other features")
        progress = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
        if not 0 <= progress["rows"] <= progress["clips"] <= self._room:
            raise ValueError(f"{PROGRESS} has {progress['rows']} rows of {progress['clips']} clips")
        for name, (dtype, shape) in self._forms.items():
            array = np.lib.format.open_memmap(self.folder / f"{name}.npy", mode="r" if progress["complete"] else "r+")
            if array.dtype != dtype or array.shape != (self._room, *shape):
                raise ValueError(f"{name}.npy is {array.dtype} {array.shape}")
            self._arrays[name] = array
        self.clips, self.rows, self.complete = progress["clips"], progress["rows"], progress["complete"]
        self.skips, self.seconds = progress["skips"], progress["seconds"]

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / PROGRESS).unlink(missing_ok=True)
        for name, (dtype, shape) in self._forms.items():
            file = self.folder / f"{name}.npy"
            self._arrays[name] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=(self._room, *shape))
            # Room is taken now: a disk that fills up under a memory map kills the process without a word.
            if hasattr(os, "posix_fallocate"):
                try:
                    with file.open("r+b") as opened:
                        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
                except OSError:
                    file.unlink()  # else what there was room for stays taken
                    raise
        _write(self.folder / KEY, {"origin": self._origin, "key": self._key})
        self.commit()


@dataclasses.dataclass(frozen=True)
class Cache:
    """Where features are kept, and how.

    Attributes:
        folder: of all entries.
        form: of all-token features; pooled ones are float16.
        memory_limit: bytes; features of a set that take no more are given as arrays in memory.
        keep: "auto" keeps all-token features where the disk has room for them, "cache" refuses to go on without,
            "on_the_fly" does not keep them.
    """

    folder: pathlib.Path
    form: Form = "float16"
    memory_limit: int = 4 * 2**30
    keep: Literal["auto", "cache", "on_the_fly"] = "auto"

    def path(self, kind: str, key: Mapping[str, Any]) -> pathlib.Path:
        """Where the entry of this key lies."""
        return self.folder / f"{kind}-{_digest(key)[:20]}"

    def missing_bytes(self, path: pathlib.Path, layout: Layout, rows: int) -> int:
        """Room that this entry still has to take."""
        return 0 if (path / PROGRESS).is_file() else layout.row_bytes * rows

    def free_bytes(self) -> int:
        """Room on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    @contextlib.contextmanager
    def locked(self, paths: Sequence[pathlib.Path]) -> Iterator[None]:
        """Keeps these entries from other jobs, or waits until another is done with them."""
        with contextlib.ExitStack() as stack:
            for path in sorted(paths):  # the same order in every job, so that no two wait for each other
                path.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((path / LOCK).open("w"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print(f"Waiting for another job that computes the features in {path}.", file=sys.stderr)
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def remove_stale(self, key: Mapping[str, Any], origin: str) -> None:
        """Deletes features by an encoder that had other parameters under the same name (`origin`), and says so."""
        wanted = json.loads(json.dumps(key))
        for path, found in self._entries():
            if (
                origin
                and found["origin"] == origin
                and found["key"] != wanted
                and _but_params(found["key"]) == _but_params(wanted)
            ):
                print(f"{origin} is not what it was; its old features in {path} are deleted.", file=sys.stderr)
                shutil.rmtree(path)

    def remove_encoder(self, params: str) -> None:
        """Deletes all features by the encoder whose parameters have this fingerprint."""
        for path, found in self._entries():
            if found["key"]["encode"].get("params") == params:
                shutil.rmtree(path)

    def _entries(self) -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
        """Folders with the content of their key.json."""
        for file in sorted(self.folder.glob(f"*/{KEY}")):
            with contextlib.suppress(OSError, ValueError):  # another job deletes or writes it just now
                yield file.parent, _read_key(file.parent)


def aligned_empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Uninitialised memory at an address that JAX's CPU device takes over without a copy (a multiple of 64)."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _but_params(key: Mapping[str, Any]) -> dict[str, Any]:
    encode = {name: value for name, value in key["encode"].items() if name != "params"}
    return {**key, "encode": encode}


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _read_key(folder: pathlib.Path) -> dict[str, Any]:
    content = json.loads((folder / KEY).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.keys() != {"origin", "key"}:
        raise ValueError(f"{KEY} is not what was written")
    return content


def _write(file: pathlib.Path, content: Any) -> None:
    """All of the file or, if killed, what was there before."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, file)
