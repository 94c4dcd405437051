"""Work on one core with one thread, as a worker of the input pipeline does it."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any


def pin() -> None:
    """Pins this process to one core, if the system supports it. Call it before libraries start their threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `function` in a new process with one core and one thread, and returns its result."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=_become_worker) as pool:
        return pool.apply(function, arguments)


def _become_worker() -> None:
    pin()
    import cv2
    from absl import flags

    from jepa_jax.data.workers import worker_process
    from jepa_jax.files import allocator

    flags.FLAGS.mark_as_parsed()
    cv2.setNumThreads(0)
    allocator.keep_freed_memory(worker_process.KEPT)
