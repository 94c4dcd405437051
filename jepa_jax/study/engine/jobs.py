"""Several worker processes of a study on one machine, which share its cores and GPUs."""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from jepa_jax.distributed import exit_codes


def run(arguments: Sequence[str], jobs: int) -> int:
    """Runs `python -m jepa_jax.study` several times and waits for all. Signals are forwarded.

    Args:
        arguments: of each process.
        jobs: number of processes. The cores of this process are divided among them; so are GPUs, unless
            CUDA_VISIBLE_DEVICES is set.

    Returns:
        The exit code: that of a signal, if one stopped a process; else 1 if any failed.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gpus = sorted(file.name.removeprefix("nvidia") for file in pathlib.Path("/dev").glob("nvidia[0-9]*"))
    command = [sys.executable, "-m", "jepa_jax.study", *arguments, "--jobs=1"]
    workers: list[subprocess.Popen[bytes]] = []

    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        for worker in workers:
            worker.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in exit_codes.CODES}
    try:
        for index in range(jobs):
            own = cores[index::jobs] or cores
            environment = dict(os.environ)
            if gpus and "CUDA_VISIBLE_DEVICES" not in environment:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
                share = 0.9 / -(-jobs // len(gpus))  # of the memory of a GPU that JAX reserves
                environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{share:.3f}")
            if received:
                break
            # In a session of its own: a terminal sends Ctrl-C to this process only, which forwards it once.
            worker = subprocess.Popen(command, env=environment, start_new_session=True)
            workers.append(worker)
            if own:
                os.sched_setaffinity(worker.pid, own)
        codes = [worker.wait() for worker in workers]
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    stopped = [exit_codes.CODES[signal.Signals(number)] for number in received]
    stopped += [code for code in codes if code in exit_codes.CODES.values()]
    return stopped[0] if stopped else int(any(codes))
