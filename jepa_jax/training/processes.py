"""Several processes as one run: how they agree, who speaks, and how they end together.

Every process runs the same program on its own devices. What is asked here of all processes has to be asked by all, at
the same place: whoever is missing is waited for. Finding each other is `cluster`'s part.
"""

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from jepa_jax.config import ConfigError, difference
from jepa_jax.training.cluster import Cluster

T = TypeVar("T")

# A process that has not been heard of for so long is taken for dead, and ends all others. JAX waits 100 s by default,
# and then for up to 300 s more for the dead one to say good-bye.
HEARTBEAT_TIMEOUT_S = 20
SHUTDOWN_TIMEOUT_S = 20


def join(cluster: Cluster) -> None:
    """Waits for the other processes; before anything touches a device.

    Raises:
        ConfigError: the cluster does not tell how to find the others after all.
    """
    try:
        jax.distributed.initialize(
            coordinator_address=cluster.coordinator,
            num_processes=cluster.processes,
            process_id=cluster.process_id,
            local_device_ids=cluster.local_device_ids,
            cluster_detection_method=cluster.method,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_S,
        )
    except ValueError as error:
        raise ConfigError(
            f"This looks like {cluster.kind}, but the other processes cannot be found: {error}"
        ) from error


def run_together(job: Callable[[], int]) -> int:
    """The exit code of `job`. With several processes one that fails ends at once, and so ends the others.

    An orderly exit would wait for the others first, which wait for this one in the middle of a step.
    """
    try:
        code = job()
    except BaseException:
        if not several():
            raise
        traceback.print_exc()
        code = 1
    if several() and code:
        print(f"Process {jax.process_index()} of {jax.process_count()} stops with exit code {code}.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    jax.distributed.shutdown()
    return code


def several() -> bool:
    """Whether this run has more processes than this one."""
    return jax.distributed.is_initialized() and jax.process_count() > 1  # without the first no device is looked for


def is_main() -> bool:
    """Whether this is process 0, which writes files, shows progress and tells what happens."""
    return not several() or jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line, once for all processes."""
    if is_main():
        print(text, flush=True)


def gather(value: T) -> list[T]:
    """What each process gives, in their order; the same list in all. Any small value that can be pickled."""
    if not several():
        return [value]
    content = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = np.ravel(multihost_utils.process_allgather(np.int32(content.size)))
    padded = np.zeros(1 << int(lengths.max()).bit_length(), np.uint8)  # few sizes, as each is compiled
    padded[: content.size] = content
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def wait_for_all() -> None:
    """Returns when all processes have called it."""
    gather(None)


def from_main(make: Callable[[], T]) -> T:
    """What `make` returns, or raises, in process 0, in all of them; called there only."""
    if not several():
        return make()
    value: T | None = None
    error: Exception | None = None
    if is_main():
        try:
            value = make()
        except Exception as raised:  # raised below, in all
            error = raised
    value, error = gather((value, error))[0]
    if error is not None:
        raise error
    return value  # pyright: ignore[reportReturnType]


def require_same(settings: Mapping[str, Any]) -> None:
    """Checks that all processes were given the same.

    Raises:
        ConfigError: in all of them, if not; says which differ.
    """
    first, *others = gather(settings)
    for number, other in enumerate(others, start=1):
        if lines := difference(first, other, "given"):
            raise ConfigError(
                f"Process {number} was not started like process 0 (0 → {number}):\n  " + "\n  ".join(lines) + "\n"
                "All processes of a run need the same command, code and data."
            )


def require_shared(folder: epath.Path) -> None:
    """Checks that all processes see the folder that process 0 writes to.

    Raises:
        ConfigError: in all of them, if not.
    """
    if not several():
        return
    token = from_main(lambda: f".shared-{time.time_ns()}")
    if is_main():
        (folder / token).write_text("")
    wait_for_all()
    seen = gather(_appears(folder / token))
    if is_main():
        (folder / token).unlink()
    blind = [str(number) for number, sees in enumerate(seen) if not sees]
    if blind:
        raise ConfigError(
            f"{folder}, which process 0 writes to, is not the same folder for process {', '.join(blind)}. "
            "Name a --workdir that all machines share: a network file system, or gs://BUCKET/FOLDER."
        )


def _appears(path: epath.Path, seconds: float = 10.0) -> bool:
    """Whether the file is there, allowing for a network file system that needs some time to show it."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
