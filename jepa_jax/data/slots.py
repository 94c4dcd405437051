"""Memory shared between a worker and the training process, in slots that are used again and again.

Fresh shared memory for every batch costs more than filling it: the kernel has to find and clear each page.
"""

import dataclasses
import math
import mmap
import os
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np

_SHARED_MEMORY = pathlib.Path("/dev/shm")
_ALIGNMENT = 64
_SMALL = 512  # bytes; smaller arrays travel with the message


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an array lies: in which slot of which worker, from what byte on."""

    worker: int
    slot: int
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Folder:
    """The files behind the slots of all workers. Made by the training process, opened by each worker."""

    path: pathlib.Path
    slots: int
    slot_bytes: int

    @classmethod
    def make(cls, workers: int, slots: int, slot_bytes: int) -> "Folder":
        """Takes shared memory if it has the room, else files, which the system keeps in memory as far as it can.

        Args:
            workers: how many will open one each.
            slots: of each worker.
            slot_bytes: what a slot can hold.

        Raises:
            OSError: neither has the room.
        """
        slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        needed = workers * slots * slot_bytes
        roomy = _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > needed
        folder = pathlib.Path(tempfile.mkdtemp(prefix="jepa_jax_batches_", dir=_SHARED_MEMORY if roomy else None))
        for worker in range(workers):
            with (folder / str(worker)).open("wb") as file:
                size = mmap.PAGESIZE + slots * slot_bytes
                if hasattr(os, "posix_fallocate"):
                    # Room is taken now: a full disk is an error here and would be a crash later.
                    os.posix_fallocate(file.fileno(), 0, size)
                else:  # macOS
                    file.truncate(size)
        return cls(folder, slots, slot_bytes)

    @property
    def in_memory(self) -> bool:
        """Whether the slots are in shared memory."""
        return self.path.parent == _SHARED_MEMORY

    def open(self, worker: int) -> "Slots":
        """The slots of one worker."""
        return Slots(self, worker)

    def remove(self) -> None:
        """Takes the files' names away; they last as long as a process has them open."""
        shutil.rmtree(self.path, ignore_errors=True)


class Slots:
    """The slots of one worker. The worker fills those that are free; the training process frees them again.

    A byte for each slot, in front of them, says whether it is taken.
    """

    def __init__(self, folder: Folder, worker: int):
        """Opens the worker's file."""
        self._folder, self._worker = folder, worker
        self._slot, self._used = -1, 0  # the slot being filled and how many of its bytes are
        self._lent: dict[int, tuple[np.ndarray, _Place]] = {}
        with (folder.path / str(worker)).open("rb+") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A new array for the batch being made, in its slot if there is room and in memory of its own if not."""
        size = math.prod(shape) * dtype.itemsize
        if self._slot < 0:
            self._slot = self._memory[: self._folder.slots].find(0)
        if self._slot < 0 or size < _SMALL or self._used + size > self._folder.slot_bytes or dtype.hasobject:
            return np.empty(shape, dtype)
        self._memory[self._slot] = 1
        start = mmap.PAGESIZE + self._slot * self._folder.slot_bytes + self._used
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        place = _Place(self._worker, self._slot, start, shape, dtype)
        array = self._view(place)
        self._lent[id(array)] = array, place
        return array

    def put(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with, in the stead of those of its arrays that are in the slot, their places; ends the batch.

        Arrays made elsewhere are copied into the slot as far as they fit; what does not stays in the message.
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

    def take(self, place: _Place) -> np.ndarray:
        """A copy of an array that the worker put here; JAX puts it on a CPU device without copying it again."""
        copied = _aligned(place.shape, place.dtype)
        np.copyto(copied, self._view(place))
        return copied

    def free(self, slot: int) -> None:
        """Lets the worker fill a slot again."""
        self._memory[slot] = 0

    def _view(self, place: _Place) -> np.ndarray:
        return np.ndarray(place.shape, place.dtype, self._memory, place.start)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array at an address that JAX's CPU backend can use as it is."""
    memory = np.empty(math.prod(shape) * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + memory.size - _ALIGNMENT].view(dtype).reshape(shape)


def copy_out(batch: dict[str, Any], slots: list[Slots]) -> dict[str, Any]:
    """A batch with arrays of its own, whether they came by slot, which is freed, or in the message."""

    def own(value: Any) -> Any:
        if isinstance(value, _Place):
            return slots[value.worker].take(value)
        return np.array(value) if isinstance(value, np.ndarray) else value

    copied = {key: own(value) for key, value in batch.items()}
    for worker, slot in {(value.worker, value.slot) for value in batch.values() if isinstance(value, _Place)}:
        slots[worker].free(slot)
    return copied
