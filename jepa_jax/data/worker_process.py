"""What goes on inside a worker process, and the note by which others see what file it is at."""

import contextlib
import ctypes
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

from jepa_jax.data import decode, slots

_NOTE_BYTES = 4096
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_KEPT = 32 * 2**20  # bytes of one array; glibc takes no more
_KEPT = 2**30  # bytes in all

# Of this process, if it is a worker: its note, what is said of each file that it must not touch, where batches go.
_note: mmap.mmap | None = None
_deadly: Mapping[str, str] = {}
_slots: slots.Slots | None = None


def start(notes: pathlib.Path, deadly: Mapping[str, str], shared: slots.Folder, index: int, count: int) -> None:
    """Called first in every worker.

    Args:
        notes: the folder to leave its note in.
        deadly: files to keep its hands off, and what to say of them.
        shared: where its slots for batches are.
        index: its number.
        count: of workers.
    """
    del count
    follow_parent()
    keep_freed_memory()
    cv2.setNumThreads(0)
    global _note, _deadly, _slots
    _deadly, _slots = deadly, shared.open(index)
    (shared.path / str(index)).unlink()  # the training process has it open too; so it ends with the two
    with (notes / str(os.getpid())).open("wb+") as file:
        file.truncate(_NOTE_BYTES)
        _note = mmap.mmap(file.fileno(), _NOTE_BYTES)


def follow_parent() -> None:
    """Makes this worker process end when, and only when, the process that started it says so or dies."""
    # Ctrl-C and a cluster's SIGTERM reach the whole process group; the training process decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array for the batch being made; in a worker, where the training process will find it."""
    return np.empty(shape, dtype) if _slots is None else _slots.empty(shape, dtype)


def hand_over(batch: dict[str, Any]) -> dict[str, Any]:
    """The last step of making a batch: in a worker, its large arrays go by their places in the worker's slot."""
    return batch if _slots is None else _slots.put(batch)


def keep_freed_memory() -> None:
    """Makes glibc, where that is what allocates, hand freed memory out again in place of returning it to the kernel.

    Else every decoded frame comes with fresh pages, which costs as much again as decoding a small JPEG.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


@contextlib.contextmanager
def at_work_on(path: str) -> Iterator[None]:
    """While it lasts, this worker's note names the file; the note outlives the process, however that ends.

    Raises:
        DecodeError: the file made a worker crash before.
    """
    if path in _deadly:
        raise decode.DecodeError(path, _deadly[path])
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
    """Of every worker that left a note in the folder, by process number: the file it is or was at, or ''."""
    content = {int(file.name): file.read_bytes() for file in notes.iterdir()}
    return {process: os.fsdecode(note.partition(b"\0")[0]) for process, note in content.items()}


def _end_with_parent() -> None:
    """Ends a worker whose training process was killed and could not tell it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
