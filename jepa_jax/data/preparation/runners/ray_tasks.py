"""Runs tasks on a Ray cluster. Ray is imported only when a job asks for it.

A task is repeated on another worker if its process or machine dies. Errors of the task itself end the job.
"""

import contextlib
import importlib
import socket
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, TypeVar

import cv2

from jepa_jax import progress
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.preparation.runners.parallel import Tick

RETRIES = 5  # of a task whose process or machine died
POLL_S = 0.5
LOCAL = "auto"  # address of the cluster that this machine is part of
CONNECT_S = 10.0  # Ray itself tries for ten minutes and more

Task = TypeVar("Task")


def run(
    work: Callable[[Task, Tick], object],
    tasks: Sequence[Task],
    address: str,
    size: Callable[[Task], int],
    bar: progress.Progress,
    done: int = 0,
) -> None:
    """Runs `work` for each task, one task a CPU of the cluster; the first error stops all.

    Args:
        work: a module-level function, or a `functools.partial` of one, of a package that every machine has.
        tasks: the first arguments of `work`.
        address: of the cluster; "auto" for the one that this machine is part of.
        size: the number of items of a task.
        bar: updated after each task.
        done: number of items completed by earlier runs.

    Raises:
        PrepareError: Ray is not installed, the cluster does not answer, or a task lost its process or machine too
            often. Errors of `work` are re-raised.
    """
    if not tasks:
        return
    ray = _import_ray()
    with _connected(ray, address):
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_in_worker)
        shared = ray.put(work)
        pending = {remote.remote(shared, task): task for task in tasks}
        bar.update(done)
        while pending:
            finished, _ = ray.wait(list(pending), timeout=POLL_S)
            for reference in finished:
                task = pending.pop(reference)
                _result(ray, reference, task)
                done += size(task)
                bar.update(done)


def _in_worker(work: Callable[[Task, Tick], object], task: Task) -> None:
    cv2.setNumThreads(1)
    work(task, _no_tick)


def _no_tick() -> None:
    pass


def _result(ray: ModuleType, reference: Any, task: object) -> None:
    """Raises the error of a finished task."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:  # WorkerCrashedError, NodeDiedError, OutOfMemoryError, …
        raise PrepareError(
            f"Ray could not finish {task} in {RETRIES + 1} attempts: {type(error).__name__}. Its workers or machines "
            "died, most likely because memory ran out; give each task more with fewer CPUs a machine (ray start "
            f"--num-cpus), and run the same command again to resume. {error}"
        ) from error


def _import_ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise PrepareError(f'--ray needs Ray: pip install "jepa_jax[ray]" on every machine. ({error})') from error


@contextlib.contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    """Connects to the cluster; tasks that still run at the end of the context are stopped."""
    try:
        _check_address(address)
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    except (OSError, RuntimeError, ValueError) as error:
        where = "No Ray cluster runs on this machine" if address == LOCAL else f"--ray={address} does not answer"
        raise PrepareError(f"{where}; start one with `ray start --head`, or give its address. ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raises OSError or ValueError if nothing listens at HOST:PORT or ray://HOST:PORT."""
    if address != LOCAL:
        host, _, port = address.rpartition("://")[2].rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
