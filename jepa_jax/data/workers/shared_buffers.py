"""Shared memory between a worker and the training process, divided into reusable slots.

Allocating shared memory per batch costs more than filling it, since the kernel has to clear each page.
"""

import dataclasses
import math
import mmap
import os
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any

import numpy as np

from jepa_jax.files.aligned import ALIGNMENT, aligned_empty
from jepa_jax.settings import ConfigError

MAX_BYTES = 4 * 2**30  # total for all workers, unless one batch per worker needs more
_SHARE = 0.5  # of the free space; the rest is left to other programs
_SHARED_MEMORY = pathlib.Path("/dev/shm")
_SMALL = 512  # bytes; smaller arrays are part of the message
_POLL_S = 0.001  # interval at which a worker without a free slot checks again
_CLOSED = mmap.PAGESIZE - 1  # offset of the byte that is 1 once the slots are closed


@dataclasses.dataclass(frozen=True)
class _ArrayRef:
    """Location of an array: worker, slot and first byte."""

    worker: int
    slot: int
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class BufferFiles:
    """The files that back the slots of all workers. Created by the training process, opened by each worker."""

    path: pathlib.Path
    workers: int
    slots: int  # of each worker
    slot_bytes: int

    @classmethod
    def make(cls, workers: int, max_slots: int, slot_bytes: int) -> "BufferFiles":
        """Reserves shared memory if one batch per worker fits, otherwise temporary files, which the system caches.

        Args:
            workers: number of workers, with one file each.
            max_slots: maximum slots per worker, at least 1; fewer are reserved if they would exceed `MAX_BYTES` or half
                of the free space.
            slot_bytes: capacity of a slot.

        Raises:
            ConfigError: neither has enough space.
        """
        slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        room = int(shutil.disk_usage(_SHARED_MEMORY).free * _SHARE) if _SHARED_MEMORY.is_dir() else 0
        slots = affordable_slots(workers, max_slots, slot_bytes, room)
        place = _SHARED_MEMORY if slots else pathlib.Path(tempfile.gettempdir())
        slots = slots or affordable_slots(workers, max_slots, slot_bytes)
        folder = pathlib.Path(tempfile.mkdtemp(prefix="jepa_jax_batches_", dir=place))
        try:
            for worker in range(workers):
                _reserve(folder / str(worker), mmap.PAGESIZE + slots * slot_bytes)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise ConfigError(
                f"There is no room to pass batches from {workers} workers: /dev/shm may give {room / 2**30:.2f} GiB, "
                f"half of what is free, and one batch each takes {workers * slot_bytes / 2**30:.2f} GiB; {place} "
                f"cannot hold {workers * slots * slot_bytes / 2**30:.2f} GiB ({error.strerror or error}). Use a "
                f"smaller batch_size, at most {room // slot_bytes} workers (0: batches are made in this process), or "
                "enlarge /dev/shm (docker run --shm-size)."
            ) from error
        return cls(folder, workers, slots, slot_bytes)

    @property
    def reserved_bytes(self) -> int:
        """Total size of all slots."""
        return self.workers * self.slots * self.slot_bytes

    @property
    def in_memory(self) -> bool:
        """Whether the slots are in shared memory."""
        return self.path.parent == _SHARED_MEMORY

    def open(self, worker: int) -> "Slots":
        """Opens the slots of one worker."""
        return Slots(self, worker)

    def remove(self) -> None:
        """Unlinks the files; their memory is freed once no process has them open."""
        shutil.rmtree(self.path, ignore_errors=True)


class Slots:
    """The slots of one worker, which fills free slots; the training process frees them.

    A header has one byte per slot: 1 if the slot is in use.
    """

    def __init__(self, folder: BufferFiles, worker: int):
        """Opens the worker's file."""
        self._folder, self._worker = folder, worker
        self._slot, self._used = -1, 0  # the slot being filled and its used bytes
        self._lent: dict[int, tuple[np.ndarray, _ArrayRef]] = {}
        with (folder.path / str(worker)).open("rb+") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Allocates an array for the current batch, in its slot if it fits and in private memory otherwise.

        The first array of a batch waits for a free slot.
        """
        size = math.prod(shape) * dtype.itemsize
        if size < _SMALL or self._used + size > self._folder.slot_bytes or dtype.hasobject:
            return np.empty(shape, dtype)
        if self._slot < 0:
            self._slot = self._wait()
        if self._slot < 0:
            return np.empty(shape, dtype)
        self._memory[self._slot] = 1
        start = mmap.PAGESIZE + self._slot * self._folder.slot_bytes + self._used
        self._used += -(-size // ALIGNMENT) * ALIGNMENT
        ref = _ArrayRef(self._worker, self._slot, start, shape, dtype)
        array = self._view(ref)
        self._lent[id(array)] = array, ref
        return array

    def put(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Completes the current batch: replaces its arrays in the slot by references and returns the result.

        Arrays outside the slot are copied into it if they fit; otherwise they stay in the message.
        """
        placed = {}
        for key, value in batch.items():
            if isinstance(value, np.ndarray) and id(value) not in self._lent:
                copied = self.empty(value.shape, value.dtype)
                if id(copied) in self._lent:
                    np.copyto(copied, value)
                    value = copied
            placed[key] = self._lent[id(value)][1] if id(value) in self._lent else value
        self._slot, self._used = -1, 0
        self._lent.clear()
        return placed

    def take(self, ref: _ArrayRef) -> np.ndarray:
        """Copies an array out of its slot, aligned so that JAX can use it on a CPU device without another copy."""
        copied = aligned_empty(ref.shape, ref.dtype)
        np.copyto(copied, self._view(ref))
        return copied

    def free(self, slot: int) -> None:
        """Marks a slot as free."""
        self._memory[slot] = 0

    def close(self) -> None:
        """Makes a worker that waits for a free slot stop waiting."""
        self._memory[_CLOSED] = 1

    def _wait(self) -> int:
        """Waits for a free slot; returns −1 if the training process has closed the slots."""
        while (slot := self._memory[: self._folder.slots].find(0)) < 0 and not self._memory[_CLOSED]:
            time.sleep(_POLL_S)
        return slot

    def _view(self, ref: _ArrayRef) -> np.ndarray:
        return np.ndarray(ref.shape, ref.dtype, self._memory, ref.start)


def _reserve(file: pathlib.Path, size: int) -> None:
    with file.open("wb") as opened:
        if hasattr(os, "posix_fallocate"):
            # Allocates the space now, so that a full disk raises here instead of crashing later.
            os.posix_fallocate(opened.fileno(), 0, size)
        else:  # macOS
            opened.truncate(size)


def affordable_slots(workers: int, max_slots: int, slot_bytes: int, room: int = sys.maxsize) -> int:
    """Slots per worker if `room` bytes may be reserved; 0 if one slot per worker does not fit.

    All slots together take at most `MAX_BYTES`, but each worker gets at least one.
    """
    if workers * slot_bytes > room:
        return 0
    return max(1, min(max_slots, min(room, MAX_BYTES) // (workers * slot_bytes)))


def copy_out(batch: dict[str, Any], slots: list[Slots]) -> dict[str, Any]:
    """Copies the arrays of a batch, from slots (which are freed) or from the message."""

    def copy(value: Any) -> Any:
        if isinstance(value, _ArrayRef):
            return slots[value.worker].take(value)
        return np.array(value) if isinstance(value, np.ndarray) else value

    copied = {key: copy(value) for key, value in batch.items()}
    for worker, slot in {(value.worker, value.slot) for value in batch.values() if isinstance(value, _ArrayRef)}:
        slots[worker].free(slot)
    return copied
