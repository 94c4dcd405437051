"""Processes that decode ahead of the training loop. They import numpy, PyAV and OpenCV to work with, and no device."""

import gc
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import cv2
import grain
import numpy as np
from absl import logging

_SHARED_MEMORY = pathlib.Path("/dev/shm")
_BUFFERED = 1  # batches ready in each worker, besides the one it makes and the one being read


class Ahead(Iterator[dict[str, Any]]):
    """Batches in order, made ahead by worker processes; close() ends them."""

    def __init__(self, batches: grain.MapDataset, workers: int, batch_bytes: int):
        """Starts `workers` processes with the first batch asked for; with 0 the caller makes the batches itself.

        `batch_bytes` is the size of a batch, to see whether shared memory can hold what the workers make.
        """
        # Each worker goes through its share one by one: more clips at once are a matter of more workers.
        one_by_one = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        ahead = batches.to_iter_dataset(one_by_one)
        if workers:
            ahead = grain.experimental.WithOptionsIterDataset(ahead, _transfer(workers * (_BUFFERED + 2) * batch_bytes))
            options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_BUFFERED)
            ahead = ahead.mp_prefetch(options, worker_init_fn=_start_worker)
        self._iterator: grain.DatasetIterator | None = iter(ahead)

    def __next__(self) -> dict[str, Any]:
        """The next batch, copied out of the workers' shared memory, which is free again then."""
        if self._iterator is None:
            raise StopIteration
        made = next(self._iterator)
        return {key: np.array(value) if isinstance(value, np.ndarray) else value for key, value in made.items()}

    def close(self) -> None:
        """Ends the workers and frees their shared memory. A second call does nothing."""
        if self._iterator is None:
            return
        self._iterator.close()
        self._iterator = None
        gc.collect()  # what ended the iterator refers to its last batches, in a circle


def _transfer(needed: int) -> grain.experimental.DatasetOptions:
    """Shared memory where there is room for what is under way, else pipes: a full one kills processes unheard."""
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else sys.maxsize
    if needed <= free:
        return grain.experimental.DatasetOptions()
    logging.warning(
        "Workers pass batches through pipes, which is slower: they need %.1f GiB of shared memory and %s has %.1f GiB. "
        "Give it more (docker run --shm-size) or use fewer workers.",
        needed / 2**30,
        _SHARED_MEMORY,
        free / 2**30,
    )
    return grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)


def _start_worker(index: int, count: int) -> None:
    del index, count
    follow_parent()
    cv2.setNumThreads(0)


def follow_parent() -> None:
    """Makes this worker process end when, and only when, the process that started it says so or dies."""
    # Ctrl-C and a cluster's SIGTERM reach the whole process group; the training process decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose training process was killed and could not tell it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
