"""Batches made ahead of the training loop by worker processes, which are started anew if one of them dies.

Workers import numpy, PyAV and OpenCV to work with, and no device. A file that makes a library crash takes its worker
down; it is blamed, so that the workers started in its place pass it over. Since batches are addressed by number, what
was under way is made again, and is the same.
"""

import functools
import gc
import multiprocessing
import pathlib
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from typing import Any

import grain
from absl import logging

from jepa_jax.data import slots, worker_process

_BUFFERED = 1  # batches ready in each worker
# In use at once, of a worker: the batch being made, those ready, two in grain's own thread, one being copied out.
_SLOTS = _BUFFERED + 4
PATIENCE_S = 60.0  # for a batch; after that it is said what the workers are at
MOST_DEATHS = 3  # in a row, without a batch in between
# How a process ends by its own fault. SIGKILL comes from outside: from a person, or the kernel where memory is short.
_FAULTS = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGABRT, -signal.SIGSYS}
_ROOM = 2**16  # bytes of a slot for the small arrays
_EXIT_CODE = re.compile(r"exit code (-?\d+)")


class WorkersDiedError(ChildProcessError):
    """Workers die as fast as they are started."""


class Ahead(Iterator[dict[str, Any]]):
    """Batches in order, made ahead by worker processes; close() ends them."""

    def __init__(self, batches: grain.MapDataset, workers: int, batch_bytes: int):
        """Starts `workers` processes with the first batch asked for; with 0 the caller makes the batches itself.

        `batch_bytes` is the size of a batch: the shared memory by which it comes is made for that.
        """
        self._batches, self._workers, self._batch_bytes = batches, workers, batch_bytes
        self._given = 0
        self._deadly: dict[str, str] = {}  # files that made a worker crash, and what is said of them
        self._deaths = 0  # since the last batch
        self._crew: _Crew | None = None
        self._alone: Iterator[Any] | None = None
        self._closed = False
        self.copy_seconds = 0.0  # spent on the last batch in this process

    def __next__(self) -> dict[str, Any]:
        """The next batch, copied out of the workers' shared memory, which they use again.

        Raises:
            WorkersDiedError: workers died several times in a row without making a batch.
        """
        while not self._closed:
            try:
                made = self._make()
            except _DeathError as death:
                self._bury(death)
                continue
            self._given += 1
            self._deaths = 0
            start = time.perf_counter()
            copied = slots.copy_out(made, self._crew.slots if self._crew else [])
            self.copy_seconds = time.perf_counter() - start
            return copied
        raise StopIteration

    def _make(self) -> dict[str, Any]:
        if not self._workers:
            self._alone = self._alone or iter(_one_by_one(self._batches))
            return next(self._alone)
        if self._crew is None:
            rest = self._batches[self._given :]
            self._crew = _Crew(rest, self._workers, self._batch_bytes, self._deadly)  # pyright: ignore[reportArgumentType]
        impatience = threading.Timer(PATIENCE_S, self._crew.tell)
        impatience.daemon = True
        impatience.start()
        try:
            return next(self._crew)
        finally:
            impatience.cancel()

    def _bury(self, death: "_DeathError") -> None:
        """Drops the crew of which a worker died, and remembers what file is to blame."""
        assert self._crew is not None
        self._crew.close()
        self._crew = None
        self._deaths += 1
        for code, path in death.ended:
            if path and code is not None and code in _FAULTS and path not in self._deadly:
                self._deadly[path] = f"reading it makes the process crash ({_signal(code)})"
                self._deaths = 0
        told = "; ".join(f"{_signal(code)}, {f'at {path}' if path else 'between files'}" for code, path in death.ended)
        if self._deaths >= MOST_DEATHS:
            raise WorkersDiedError(
                f"Worker processes died {self._deaths} times in a row without making a batch (the last: {told}). "
                "SIGKILL mostly comes from the kernel when memory is short: use fewer config.data.workers or a smaller "
                "config.batch_size. With config.data.workers=0 the training process reads the files itself and shows "
                "its error."
            )
        logging.warning("A worker process died (%s). Starting the workers anew.", told)

    def close(self) -> None:
        """Ends the workers and frees their shared memory. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._alone = None
        if self._crew is not None:
            self._crew.close()
            self._crew = None


class _DeathError(Exception):
    """A worker died. `ended`: exit code of each that did, and the file it was at ('' for none)."""

    def __init__(self, ended: list[tuple[int | None, str]]):
        super().__init__(ended)
        self.ended = ended


class _Crew(Iterator[dict[str, Any]]):
    """Worker processes started together.

    Grain notices a dead worker within a second, unless it died in the middle of sending: then the reader waits for the
    rest for ever. Messages are small (arrays go by slots), and so sent whole or not at all.
    """

    def __init__(self, batches: grain.MapDataset, workers: int, batch_bytes: int, deadly: Mapping[str, str]):
        """Starts with the first of `batches`; passes over `deadly` files."""
        folder = slots.Folder.make(workers, _SLOTS, batch_bytes + _ROOM)
        if not folder.in_memory:
            logging.warning(
                "Workers pass batches through files in %s, which is slower: they need %.1f GiB of shared memory and "
                "/dev/shm has less. Give it more (docker run --shm-size) or use fewer workers.",
                folder.path.parent,
                workers * _SLOTS * batch_bytes / 2**30,
            )
        self._folder, self.slots = folder, [folder.open(worker) for worker in range(workers)]
        self._notes = pathlib.Path(tempfile.mkdtemp(prefix="jepa_jax_workers_"))
        self._iterator: grain.DatasetIterator | None = iter(
            _one_by_one(batches.map(worker_process.hand_over)).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_BUFFERED),
                worker_init_fn=functools.partial(worker_process.start, self._notes, dict(deadly), folder),
            )
        )
        self._processes: dict[int, BaseProcess] = {}

    def __next__(self) -> dict[str, Any]:
        assert self._iterator is not None
        try:
            made = next(self._iterator)
        except RuntimeError as error:  # grain's, when a worker is gone, and a worker's own
            if ended := self._ended(str(error)):
                raise _DeathError(ended) from error
            raise
        if not self._processes:
            self._look()
        return made

    def tell(self) -> None:
        """Warns of a batch that does not come: a file on a disk that does not answer keeps its reader for ever."""
        if self._iterator is None:  # closed meanwhile
            return
        files = sorted(path for path in worker_process.read_notes(self._notes).values() if path)
        logging.warning(
            "No batch for %.0f s. The workers are at: %s. If the disk does not answer, end this run and see to it; the "
            "same command goes on from the last checkpoint.",
            PATIENCE_S,
            ", ".join(files) or "no file, but starting or between two",
        )

    def _look(self) -> dict[int, str]:
        """The workers' notes. Processes are remembered, since those that ended are listed nowhere."""
        notes = worker_process.read_notes(self._notes)
        self._processes |= {p.pid: p for p in multiprocessing.active_children() if p.pid in notes}
        return notes

    def _ended(self, said: str = "") -> list[tuple[int | None, str]]:
        """Exit code and file of the workers that ended; of one that ended before it was seen, the code that is said."""
        told = _EXIT_CODE.search(said)
        ended = []
        for pid, path in self._look().items():
            process = self._processes.get(pid)
            if process is None or process.exitcode:
                ended.append((process.exitcode if process else int(told[1]) if told else None, path))
        return ended

    def close(self) -> None:
        """Ends the processes and takes their files away."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None
            gc.collect()  # what ended the iterator refers to its last batches, in a circle
        shutil.rmtree(self._notes, ignore_errors=True)
        self._folder.remove()


def _one_by_one(batches: grain.MapDataset) -> grain.IterDataset:
    """Each worker goes through its share one by one: more clips at once are a matter of more workers."""
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))


def _signal(code: int | None) -> str:
    if code is None:
        return "for an unknown reason"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
