"""Batches put on devices ahead of the step that takes them."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

from jepa_jax.data import stages
from jepa_jax.data.loader import Batch

_LOOK_S = 0.002  # how often a waiting caller looks whether the device is still busy
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

    def __init__(
        self, batches: HostBatches, put: Callable[[Batch], T], size: int, throughput: stages.Throughput | None = None
    ):
        """Keeps up to `size` results of `put` ready; 0 does all in the caller's thread. Tells `throughput` of waits."""
        self._batches = batches
        self._put = put
        self._throughput = throughput or stages.Throughput(0, 1)
        self._ready: queue.SimpleQueue[tuple[T | None, int, BaseException | None]] = queue.SimpleQueue()
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
                self._ready.put((*self._make(), None))
            except BaseException as error:  # handed to the caller, StopIteration too
                self._ready.put((None, 0, error))
                return

    def _make(self) -> tuple[T, int]:
        """The next batch on devices and how many clips it has."""
        batch = next(self._batches)
        watch = stages.Stopwatch(stages.TRANSFER)
        on_device = self._put(batch)
        self._throughput.spent(watch.stop())
        return on_device, len(batch["item"])

    def __next__(self) -> T:
        """The next batch on devices; raises what the source or `put` raised."""
        return self.take(lambda: True)

    def take(self, idle: Callable[[], bool]) -> T:
        """The next batch, as `next` gives it; `idle()` says whether the device has nothing left to do.

        Only what the caller waits while the device is idle counts as the device's waiting.
        """
        if self._end is not None:
            raise self._end
        ready = self._ready.qsize()
        if self._thread is None:
            since = time.perf_counter() if idle() else None
            batch, clips = self._make()
        else:
            since = self._wait(idle)
            batch, clips, self._end = self._ready.get()
            if self._end is not None:
                raise self._end
            self._free.release()
        self._throughput.took(clips, ready=ready, waited=0.0 if since is None else time.perf_counter() - since)
        return batch  # pyright: ignore[reportReturnType]

    def _wait(self, idle: Callable[[], bool]) -> float | None:
        """Returns when a batch is ready, or else as soon as the device is idle, with the time of that."""
        while self._ready.empty():
            if idle():
                return time.perf_counter()
            time.sleep(_LOOK_S)
        return None

    def close(self) -> None:
        """Ends the thread, drops what was ready and closes the source. A second call does nothing."""
        self._stop.set()
        self._free.release()
        if self._thread is not None:
            self._thread.join(timeout=_PATIENCE_S)  # a worker may hang on a dead disk: closing its source ends it
        self._end = self._end or StopIteration()
        self._ready = queue.SimpleQueue()
        self._batches.close()


def device_prefetch(
    batches: HostBatches, put: Callable[[Batch], T], size: int, throughput: stages.Throughput | None = None
) -> DevicePrefetch[T]:
    """Batches on devices: `put(host batch)` is called up to `size` batches ahead of the one last asked for."""
    return DevicePrefetch(batches, put, size, throughput)
