"""Worker processes that prepare batches ahead of the training loop, restarted if one of them dies.

Workers use numpy, PyAV and OpenCV and never touch an accelerator. If a file crashes a library, its worker dies; the
restarted workers skip that file. Batches are addressed by number, so an unfinished batch is recomputed identically.
"""

import functools
import gc
import multiprocessing
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from absl import logging

from jepa_jax.data.workers import shared_buffers, worker_process

if TYPE_CHECKING:
    import grain  # slow to import: at run time, imported when workers start

_BUFFERED = 1  # finished batches held by each worker
# Slots in use per worker: the current batch, the finished ones, two in grain's own thread, one being copied out.
_SLOTS = _BUFFERED + 4
WARN_AFTER_S = 60.0  # without a batch: then a warning lists the files that workers are reading
MAX_DEATHS = 3  # in a row, without a batch in between
# Exit codes of a crash. SIGKILL is not one: it is sent by a user, or by the kernel when memory runs out.
_CRASHES = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGABRT, -signal.SIGSYS}
_ROOM = 2**16  # bytes per slot for the small arrays
_EXIT_CODE = re.compile(r"exit code (-?\d+)")


class WorkersDiedError(ChildProcessError):
    """Workers die repeatedly without completing a batch."""


class BatchPrefetcher(Iterator[dict[str, Any]]):
    """Iterates over batches in order while worker processes prepare the next ones; close() stops them."""

    def __init__(self, batches: "grain.MapDataset", workers: int, batch_bytes: int):
        """`workers` processes start with the first call to `next`; with 0, batches are computed in the calling process.

        `batch_bytes` is the size of a batch as transferred by the workers; shared memory for several is reserved.
        """
        self._batches, self._workers, self._batch_bytes = batches, workers, batch_bytes
        self._next_batch = 0
        self._crashing: dict[str, str] = {}  # files that crashed a worker → reason
        self._deaths = 0  # since the last batch
        self._pool: WorkerPool | None = None
        self._in_process: Iterator[Any] | None = None
        self._closed = False
        self.copy_seconds = 0.0  # spent copying the last batch in this process

    def __next__(self) -> dict[str, Any]:
        """Returns the next batch, copied out of the workers' shared memory so that they can reuse it.

        Raises:
            WorkersDiedError: workers died several times in a row without completing a batch.
        """
        while not self._closed:
            try:
                made = self._make()
            except _DeathError as death:
                self._on_worker_death(death)
                continue
            self._next_batch += 1
            self._deaths = 0
            start = time.perf_counter()
            copied = shared_buffers.copy_out(made, self._pool.slots if self._pool else [])
            self.copy_seconds = time.perf_counter() - start
            return copied
        raise StopIteration

    def _make(self) -> dict[str, Any]:
        if not self._workers:
            self._in_process = self._in_process or iter(_sequential(self._batches))
            return next(self._in_process)
        if self._pool is None:
            rest = self._batches[self._next_batch :]
            self._pool = WorkerPool(rest, self._workers, self._batch_bytes, self._crashing)  # pyright: ignore[reportArgumentType]
        timer = threading.Timer(WARN_AFTER_S, self._pool.warn_of_delay)
        timer.daemon = True
        timer.start()
        try:
            return next(self._pool)
        finally:
            timer.cancel()

    def _on_worker_death(self, death: "_DeathError") -> None:
        """Closes the pool and records the file that crashed the worker."""
        assert self._pool is not None
        self._pool.close()
        self._pool = None
        self._deaths += 1
        for code, path in death.ended:
            if path and code is not None and code in _CRASHES and path not in self._crashing:
                self._crashing[path] = f"reading it crashes the process ({_signal(code)})"
                self._deaths = 0
        causes = "; ".join(
            f"{_signal(code)}, {f'while reading {path}' if path else 'between files'}" for code, path in death.ended
        )
        if self._deaths >= MAX_DEATHS:
            raise WorkersDiedError(
                f"Worker processes died {self._deaths} times in a row without completing a batch (most recently: "
                f"{causes}). SIGKILL usually means that memory ran out: use fewer config.data.workers or a smaller "
                "config.batch_size. Set config.data.workers=0 to read files in the training process and see the error."
            )
        logging.warning("A worker process died (%s). Restarting the workers.", causes)

    def close(self) -> None:
        """Stops the workers and frees their shared memory. A second call has no effect."""
        if self._closed:
            return
        self._closed = True
        self._in_process = None
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class _DeathError(Exception):
    """A worker died. `ended`: exit code of each dead worker and the file it was reading ('' for none)."""

    def __init__(self, ended: list[tuple[int | None, str]]):
        super().__init__(ended)
        self.ended = ended


class WorkerPool(Iterator[dict[str, Any]]):
    """A set of worker processes.

    Grain detects a dead worker within a second, unless it died while sending: the reader would then wait forever for
    the rest of the message. Messages are small, since arrays are passed in slots, so that they are sent atomically.
    """

    def __init__(self, batches: "grain.MapDataset", workers: int, batch_bytes: int, crashing: Mapping[str, str]):
        """Starts at the first of `batches`; skips the `crashing` files."""
        import grain

        workers = max(1, min(workers, len(batches)))
        # A worker never holds more batches than its share.
        folder = shared_buffers.BufferFiles.make(
            workers, min(_SLOTS, -(-len(batches) // workers) or 1), batch_bytes + _ROOM
        )
        _report(folder)
        if not folder.in_memory:
            logging.warning(
                "Workers pass batches through files in %s, which is slower: /dev/shm is too small for one batch per "
                "worker (%.2f GiB in total). Enlarge it (docker run --shm-size) or use fewer workers.",
                folder.path.parent,
                workers * folder.slot_bytes / 2**30,
            )
        self._folder, self.slots = folder, [folder.open(worker) for worker in range(workers)]
        self._notes = pathlib.Path(tempfile.mkdtemp(prefix="jepa_jax_workers_"))
        self._iterator: grain.DatasetIterator | None = iter(
            _sequential(batches.map(worker_process.move_to_slot)).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_BUFFERED),
                worker_init_fn=functools.partial(worker_process.start, self._notes, dict(crashing), folder),
            )
        )
        self._processes: dict[int, BaseProcess] = {}

    def __next__(self) -> dict[str, Any]:
        assert self._iterator is not None
        try:
            made = next(self._iterator)
        except RuntimeError as error:  # raised by grain for a dead worker, or by a worker
            if ended := self._ended(str(error)):
                raise _DeathError(ended) from error
            raise
        if not self._processes:
            self._read_notes()
        return made

    def warn_of_delay(self) -> None:
        """Warns that no batch has arrived: reading from an unresponsive disk can block forever."""
        if self._iterator is None:  # closed in the meantime
            return
        files = sorted(path for path in worker_process.read_notes(self._notes).values() if path)
        logging.warning(
            "No batch for %.0f s. The workers are reading: %s. If the disk does not respond, stop this run and repair "
            "the disk, then run the same command to resume from the last checkpoint.",
            WARN_AFTER_S,
            ", ".join(files) or "no file (starting, or between files)",
        )

    def _read_notes(self) -> dict[int, str]:
        """Reads the workers' notes and records the processes, since `active_children` omits dead ones."""
        notes = worker_process.read_notes(self._notes)
        self._processes |= {p.pid: p for p in multiprocessing.active_children() if p.pid in notes}
        return notes

    def _ended(self, message: str = "") -> list[tuple[int | None, str]]:
        """Exit code and file of each dead worker; the code is parsed from `message` if the process was never seen."""
        match = _EXIT_CODE.search(message)
        ended = []
        for pid, path in self._read_notes().items():
            process = self._processes.get(pid)
            if process is None or process.exitcode:
                ended.append((process.exitcode if process else int(match[1]) if match else None, path))
        return ended

    def close(self) -> None:
        """Stops the processes and removes their files."""
        for slots in self.slots:
            slots.close()
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None
            gc.collect()  # the exception that ended the iterator holds its last batches in a reference cycle
        shutil.rmtree(self._notes, ignore_errors=True)
        self._folder.remove()


def _report(folder: shared_buffers.BufferFiles) -> None:
    where = "shared memory" if folder.in_memory else f"{folder.path.parent}"
    _print_once(
        f"Reserved {folder.reserved_bytes / 2**20:,.0f} MiB of {where} for batches: {folder.workers} workers, "
        f"{folder.slots} batches of {folder.slot_bytes / 2**20:,.1f} MiB each."
    )


@functools.cache
def _print_once(text: str) -> None:
    """Prints a line only the first time; passes over uncached features start workers repeatedly."""
    print(text, file=sys.stderr, flush=True)


def _sequential(batches: "grain.MapDataset") -> "grain.IterDataset":
    """Disables grain's threads: each worker computes one batch at a time, and parallelism comes from more workers."""
    import grain

    return batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))


def _signal(code: int | None) -> str:
    if code is None:
        return "for an unknown reason"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
