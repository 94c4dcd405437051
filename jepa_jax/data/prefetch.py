"""Prefetching of batches to devices."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

from jepa_jax.data.train_batches import Batch
from jepa_jax.data.workers import timing

_POLL_S = 0.002  # interval at which a waiting caller checks whether the device is still busy
_CLOSE_TIMEOUT_S = 10.0  # to wait for the current batch when closing


@runtime_checkable
class HostBatches(Protocol):
    """An iterator of batches that can be closed."""

    def __next__(self) -> Batch: ...

    def close(self) -> None:
        """Frees the iterator's resources."""
        ...


T = TypeVar("T")


class DevicePrefetch(Iterator[T]):
    """Transfers batches to devices ahead of the training step, in a background thread."""

    def __init__(
        self, batches: HostBatches, put: Callable[[Batch], T], size: int, throughput: timing.Throughput | None = None
    ):
        """Keeps up to `size` results of `put` ready; with 0, everything runs in the caller's thread.

        `throughput` records stage times and device waits.
        """
        self._batches = batches
        self._put = put
        self._throughput = throughput or timing.Throughput(0, 1)
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
            except BaseException as error:  # re-raised in the caller, including StopIteration
                self._ready.put((None, 0, error))
                return

    def _make(self) -> tuple[T, int]:
        """Returns the next batch on devices and its number of clips."""
        batch = next(self._batches)
        watch = timing.Stopwatch(timing.TRANSFER)
        on_device = self._put(batch)
        self._throughput.add_seconds(watch.stop())
        return on_device, len(batch["item"])

    def __next__(self) -> T:
        """Returns the next batch on devices; re-raises errors of the source and of `put`."""
        return self.take(lambda: True)

    def take(self, idle: Callable[[], bool]) -> T:
        """Like `next`, but measures how long the device waits; `idle()` returns whether the device is idle.

        Time during which the caller waits and the device is still busy is not counted.
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
        self._throughput.add_batch(clips, ready=ready, waited=0.0 if since is None else time.perf_counter() - since)
        return batch  # pyright: ignore[reportReturnType]

    def _wait(self, idle: Callable[[], bool]) -> float | None:
        """Waits until a batch is ready (returns None) or the device is idle (returns the time of that)."""
        while self._ready.empty():
            if idle():
                return time.perf_counter()
            time.sleep(_POLL_S)
        return None

    def close(self) -> None:
        """Stops the thread, drops ready batches and closes the source. A second call has no effect."""
        self._stop.set()
        self._free.release()
        if self._thread is not None:
            self._thread.join(
                timeout=_CLOSE_TIMEOUT_S
            )  # may time out if a worker hangs on a dead disk; closing the source stops it
        self._end = self._end or StopIteration()
        self._ready = queue.SimpleQueue()
        self._batches.close()


def device_prefetch(
    batches: HostBatches, put: Callable[[Batch], T], size: int, throughput: timing.Throughput | None = None
) -> DevicePrefetch[T]:
    """Calls `put(host batch)` up to `size` batches ahead and iterates over the results."""
    return DevicePrefetch(batches, put, size, throughput)
