"""Coordination of the processes of a run: collective calls, output and exit.

Every process runs the same program on its own devices. Functions documented as collective block until all processes
have called them. See `cluster` for how processes are found.
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

from jepa_jax.distributed import exit_codes
from jepa_jax.distributed.cluster import Cluster
from jepa_jax.settings import ConfigError, difference

T = TypeVar("T")

# A process without a heartbeat for this long is considered dead, and all others exit. JAX's defaults are 100 s, and
# another 300 s to shut down.
HEARTBEAT_TIMEOUT_S = 20
SHUTDOWN_TIMEOUT_S = 20
# Network file systems may show a new file late.
APPEAR_S = 10.0


def join(cluster: Cluster) -> None:
    """Connects to the other processes. Call it before any device is used.

    Raises:
        ConfigError: JAX's cluster detection does not find the other processes.
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
            f"This process seems to run under {cluster.kind}, but the other processes cannot be found: {error}"
        ) from error


def run_together(job: Callable[[], int]) -> int:
    """Runs `job` and returns its exit code.

    With several processes, one that fails exits immediately, which makes the others exit too: a normal shutdown would
    wait for processes that are themselves waiting for this one in the middle of a step. Processes stopped by a signal
    have all stopped after the same step and shut down normally.
    """
    try:
        code = job()
    except BaseException:
        if not several():
            raise
        traceback.print_exc()
        code = 1
    if several() and code and code not in exit_codes.CODES.values():
        print(f"Process {jax.process_index()} of {jax.process_count()} exits with code {code}.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    jax.distributed.shutdown()
    return code


def several() -> bool:
    """Whether the run has several processes."""
    # process_count would initialize the backend of a single process.
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_main() -> bool:
    """Whether this is process 0, which writes files and logs."""
    return not several() or jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line in process 0."""
    if is_main():
        print(text, flush=True)


def gather(value: T) -> list[T]:
    """The values of all processes, in order. Collective; for small values that can be pickled."""
    if not several():
        return [value]
    content = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = np.ravel(multihost_utils.process_allgather(np.int32(content.size)))
    padded = np.zeros(1 << int(lengths.max()).bit_length(), np.uint8)  # powers of two, as each size is compiled
    padded[: content.size] = content
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def wait_for_all() -> None:
    """A barrier. Collective."""
    gather(None)


def from_main(make: Callable[[], T]) -> T:
    """Calls `make` in process 0; returns its result, or raises its error, in all processes. Collective."""
    if not several():
        return make()
    value: T | None = None
    error: Exception | None = None
    if is_main():
        try:
            value = make()
        except Exception as raised:  # raised below in all processes
            error = raised
    value, error = gather((value, error))[0]
    if error is not None:
        raise error
    return value  # pyright: ignore[reportReturnType]


def require_same(settings: Mapping[str, Any]) -> None:
    """Checks that all processes have the same settings. Collective.

    Raises:
        ConfigError: they differ. Raised in all processes.
    """
    first, *others = gather(settings)
    for number, other in enumerate(others, start=1):
        if lines := difference(first, other, "given"):
            raise ConfigError(
                f"Process {number} was started differently from process 0 (0 → {number}):\n  "
                + "\n  ".join(lines)
                + "\n"
                "All processes of a run need the same command, code and data."
            )


def require_shared(folder: epath.Path) -> None:
    """Checks that all processes see the folder that process 0 writes to. Collective.

    Raises:
        ConfigError: a process does not see it. Raised in all processes.
    """
    if not several():
        return
    token = from_main(lambda: f".shared-{time.time_ns()}")
    if is_main():
        (folder / token).write_text("")
    wait_for_all()
    visible = gather(_appears(folder / token))
    if is_main():
        (folder / token).unlink()
    without = [str(number) for number, sees in enumerate(visible) if not sees]
    if without:
        raise ConfigError(
            f"{folder}, which process 0 writes to, is not the same folder for process {', '.join(without)}. "
            "Use a --workdir that all machines share: a network file system, or gs://BUCKET/FOLDER."
        )


def _appears(path: epath.Path) -> bool:
    """Whether the file exists, or appears within `APPEAR_S`."""
    end = time.monotonic() + APPEAR_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
