"""Seconds from a command to its answer, as a user sees them: --help, the first line and the first step of a training.

    python benchmarks/start.py [--rounds 3] [--config quickstart]

Training is started in a pseudo-terminal: without a compilation cache, as another run with the cache of that one, and
to resume. Each time is a median over rounds. `import jax` is a measure of the machine.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Mapping, Sequence

TRAIN = ["-m", "jepa_jax.train"]
FIRST_LINE = re.compile(rb"\S[^\n]*\n")
FIRST_STEP = re.compile(rb"loss \d")  # of the progress bar
TIMEOUT_S = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default="quickstart")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    for _ in range(arguments.rounds):
        seconds["import jax"].append(duration(["-c", "import jax"]))
        seconds["train --help"].append(duration([*TRAIN, "--help"]))
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for start, workdir in {"first": "one", "second": "two", "resumed": "two"}.items():
                train = [*TRAIN, f"--config={arguments.config}", f"--workdir={root / workdir}"]
                shown = appearances(
                    [*train, f"--compilation_cache={root / 'cache'}"], {"line": FIRST_LINE, "step": FIRST_STEP}
                )
                for what, after in shown.items():
                    seconds[f"{start} start, first {what}"].append(after)
    print("| | seconds | × import jax |\n|---|---|---|")
    jax = statistics.median(seconds["import jax"])
    for name, values in seconds.items():
        print(f"| {name} | {statistics.median(values):.1f} | {statistics.median(values) / jax:.1f} |")


def duration(arguments: Sequence[str]) -> float:
    """Returns the seconds that a Python process takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def appearances(arguments: Sequence[str], patterns: Mapping[str, re.Pattern[bytes]]) -> dict[str, float]:
    """Returns the seconds after which each pattern appears in the terminal of a Python process, then stops it.

    Raises:
        SystemExit: the process ended, or ran too long, before all patterns had appeared.
    """
    terminal, its_side = os.openpty()
    termios.tcsetwinsize(its_side, (24, 120))
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=its_side, stderr=its_side)
    os.close(its_side)
    text, found = b"", {}
    try:
        while len(found) < len(patterns) and time.perf_counter() - start < TIMEOUT_S:
            if not (new := _read(terminal)):
                break
            text += new
            for name, pattern in patterns.items():
                if name not in found and pattern.search(text):
                    found[name] = time.perf_counter() - start
        process.send_signal(signal.SIGTERM)
        while _read(terminal):  # training saves its state, which the next start resumes
            pass
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    if len(found) < len(patterns):
        sys.exit(f"{' '.join(arguments)} did not show {patterns.keys() - found.keys()}:\n{text.decode()}")
    return found


def _read(terminal: int) -> bytes:
    """Returns the next output; nothing once the process has ended."""
    with contextlib.suppress(OSError):  # Linux reports the end as an input/output error
        return os.read(terminal, 2**16)
    return b""


if __name__ == "__main__":
    main()
