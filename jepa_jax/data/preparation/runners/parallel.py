"""Runs tasks in several processes with a shared progress bar."""

import itertools
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import synchronize
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

import cv2

from jepa_jax import progress
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.workers import worker_process

POLL_S = 0.5

Task = TypeVar("Task")
Result = TypeVar("Result")
Tick = Callable[[], None]  # called after each item of a task

# In a worker: the number of items done by all workers, and whether to stop.
_done: "Synchronized[int]"
_stop: synchronize.Event


def run(
    work: Callable[[Task, Tick], Result], tasks: Sequence[Task], processes: int, bar: progress.Progress, done: int = 0
) -> list[Result]:
    """Returns the results of `work` for each task, in order; the first error stops all workers.

    Args:
        work: a module-level function or a `functools.partial` of one.
        tasks: the first arguments of `work`.
        processes: number of processes; with 0 the tasks run in this process.
        bar: updated after each item.
        done: number of items completed by earlier runs.

    Raises:
        PrepareError: a process was killed. Errors of `work` are re-raised.
    """
    if not processes:
        count = itertools.count(done + 1)
        return [work(task, lambda: bar.update(next(count))) for task in tasks]
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", done), context.Event()
    processes = max(1, min(processes, len(tasks)))
    with futures.ProcessPoolExecutor(processes, context, _start_worker, (counter, stop)) as pool:
        submitted = [pool.submit(_in_worker, work, task) for task in tasks]
        pending: set[futures.Future[Result]] = set(submitted)
        try:
            while pending:
                finished, pending = futures.wait(pending, POLL_S, futures.FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                bar.update(counter.value)
        except BrokenProcessPool as error:
            raise PrepareError(
                "A worker process died, probably because the machine ran out of memory. Run the same command with "
                "fewer --workers to resume."
            ) from error
        finally:  # after an error or Ctrl-C, workers stop after their current item
            stop.set()
            # Waits, since a worker that is still starting needs the lock and the event.
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in submitted]


def _start_worker(counter: "Synchronized[int]", stop: synchronize.Event) -> None:
    global _done, _stop
    _done, _stop = counter, stop
    worker_process.exit_with_parent()
    cv2.setNumThreads(1)


class _StoppedError(Exception):
    """Another worker failed or the job was interrupted."""


def _in_worker(work: Callable[[Task, Tick], Result], task: Task) -> Result:
    return work(task, _tick)


def _tick() -> None:
    with _done.get_lock():
        _done.value += 1
    if _stop.is_set():
        raise _StoppedError
