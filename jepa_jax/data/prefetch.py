"""Batches put on devices ahead of the step that takes them."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

from jepa_jax.data.loader import Batch

_PATIENCE_S = 10.0  # for the batch under way when closing


@runtime_checkable
class HostBatches(Protocol):
    """An iterator of batches that can be told to end."""

    def __next__(self) -> Batch: ...

    def close(self) -> None:
        """Frees what makes the batches."""
        ...


T = TypeVar("T")


class DevicePrefetch(Iterator[T]):
    """Puts batches on devices ahead of the step, from a thread of its own; close() ends it and its source."""

    def __init__(self, batches: HostBatches, put: Callable[[Batch], T], size: int):
        """Keeps up to `size` results of `put` ready; 0 does all in the caller's thread."""
        self._batches = batches
        self._put = put
        self._ready: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._free = threading.Semaphore(size)
        self._stop = threading.Event()
        self._end: BaseException | None = None
        self._thread = None
        if size:
            self._thread = threading.Thread(target=self._run, name="device-prefetch", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._free.acquire()
            if self._stop.is_set():
                return
            try:
                self._ready.put((self._put(next(self._batches)), None))
            except BaseException as error:  # handed to the caller, StopIteration too
                self._ready.put((None, error))
                return

    def __next__(self) -> T:
        """The next batch on devices; raises what the source or `put` raised."""
        if self._end is not None:
            raise self._end
        if self._thread is None:
            return self._put(next(self._batches))
        batch, self._end = self._ready.get()
        if self._end is not None:
            raise self._end
        self._free.release()
        return batch  # pyright: ignore[reportReturnType]

    def close(self) -> None:
        """Ends the thread, drops what was ready and closes the source. A second call does nothing."""
        self._stop.set()
        self._free.release()
        if self._thread is not None:
            self._thread.join(timeout=_PATIENCE_S)  # a worker may hang on a dead disk: closing its source ends it
        self._end = self._end or StopIteration()
        self._ready = queue.SimpleQueue()
        self._batches.close()


def device_prefetch(batches: HostBatches, put: Callable[[Batch], T], size: int) -> DevicePrefetch[T]:
    """Batches on devices: `put(host batch)` is called up to `size` batches ahead of the one last asked for."""
    return DevicePrefetch(batches, put, size)
