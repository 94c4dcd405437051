"""Tasks done by several processes, with one count of what all of them have done for the progress bar."""

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
from jepa_jax.data import worker_process
from jepa_jax.preparation.raw import PrepareError

LOOK_EVERY_S = 0.5

Task = TypeVar("Task")
Result = TypeVar("Result")
Tick = Callable[[], None]  # called after each item of a task

# In a worker: items done by all of them, and whether to stop.
_done: "Synchronized[int]"
_stop: synchronize.Event


def run(
    work: Callable[[Task, Tick], Result], tasks: Sequence[Task], processes: int, bar: progress.Progress, done: int = 0
) -> list[Result]:
    """`work` on each task, in order of the tasks; the first error ends all.

    Args:
        work: a function of a module or a `functools.partial` of one.
        tasks: what it is called with.
        processes: how many; 0 works in this one.
        bar: told of every item done.
        done: items that were done before.

    Raises:
        PrepareError: a process was killed; or what `work` raises.
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
                finished, pending = futures.wait(pending, LOOK_EVERY_S, futures.FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                bar.update(counter.value)
        except BrokenProcessPool as error:
            raise PrepareError(
                "A worker process ended without a word; most likely the machine ran out of memory. Start again "
                "to go on, with fewer --workers."
            ) from error
        finally:  # after an error or Ctrl-C the workers finish the item they are at, not their tasks
            stop.set()
            # Waits, since a worker that is still starting needs the lock and the event.
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in submitted]


def _start_worker(counter: "Synchronized[int]", stop: synchronize.Event) -> None:
    global _done, _stop
    _done, _stop = counter, stop
    worker_process.follow_parent()
    cv2.setNumThreads(1)


class _StoppedError(Exception):
    """The job is over for a reason of its own."""


def _in_worker(work: Callable[[Task, Tick], Result], task: Task) -> Result:
    return work(task, _tick)


def _tick() -> None:
    with _done.get_lock():
        _done.value += 1
    if _stop.is_set():
        raise _StoppedError
