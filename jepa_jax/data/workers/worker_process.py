"""Code that runs in a worker process, and the note in which it records the file it is reading."""

import contextlib
import mmap
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from jepa_jax.data import faults
from jepa_jax.data.workers import shared_buffers
from jepa_jax.files import allocator

_NOTE_BYTES = 4096
KEPT = 2**30  # bytes of freed memory

# State of this process if it is a worker: its note, the files to skip with the reason for each, and its slots.
_note: mmap.mmap | None = None
_crashing: Mapping[str, str] = {}
_slots: shared_buffers.Slots | None = None


def start(
    notes: pathlib.Path, crashing: Mapping[str, str], shared: shared_buffers.BufferFiles, index: int, count: int
) -> None:
    """Initializes a worker.

    Args:
        notes: folder for the worker's note.
        crashing: files to skip, with the reason for each.
        shared: files of the shared slots.
        index: index of this worker.
        count: number of workers.
    """
    del count
    exit_with_parent()
    # Otherwise each decoded frame needs new pages, which costs as much as decoding a small JPEG.
    allocator.keep_freed_memory(KEPT)
    cv2.setNumThreads(0)
    global _note, _crashing, _slots
    _crashing, _slots = crashing, shared.open(index)
    (shared.path / str(index)).unlink()  # the training process has it open; it is freed when both exit
    with (notes / str(os.getpid())).open("wb+") as file:
        file.truncate(_NOTE_BYTES)
        _note = mmap.mmap(file.fileno(), _NOTE_BYTES)


def exit_with_parent() -> None:
    """Makes this worker exit only when its parent process stops it or dies."""
    # Ctrl-C and a cluster's SIGTERM reach the whole process group; the parent decides when workers stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Allocates an array for the current batch; in a worker, in memory shared with the training process."""
    return np.empty(shape, dtype) if _slots is None else _slots.empty(shape, dtype)


def move_to_slot(batch: dict[str, Any]) -> dict[str, Any]:
    """The last step of a batch: in a worker, replaces large arrays by references into the worker's slot."""
    return batch if _slots is None else _slots.put(batch)


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Records the file in this worker's note for the duration of the block. The note outlives a crash.

    Raises:
        DecodeError: the file has crashed a worker before.
    """
    if path in _crashing:
        raise faults.DecodeError(path, _crashing[path])
    if _note is None:
        yield
        return
    content = os.fsencode(path)[: _NOTE_BYTES - 1]
    _note[: len(content) + 1] = content + b"\0"
    try:
        yield
    finally:
        _note[0] = 0


def read_notes(notes: pathlib.Path) -> dict[int, str]:
    """Returns, for each process ID with a note, the file it is or was reading, or ''."""
    content = {int(file.name): file.read_bytes() for file in notes.iterdir()}
    return {process: os.fsdecode(note.partition(b"\0")[0]) for process, note in content.items()}


def _end_with_parent() -> None:
    """Exits when the parent process dies, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
