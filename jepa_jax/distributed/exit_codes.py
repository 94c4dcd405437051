"""Exit codes of jobs interrupted by a signal: 128 + the signal number."""

import signal
from types import FrameType
from typing import NoReturn

CODES = {number: 128 + number for number in (signal.SIGINT, signal.SIGTERM)}  # 130 and 143, as in shells


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception that is handled like Ctrl-C."""


def raise_on_sigterm() -> None:
    """Makes the first SIGTERM raise Terminated in the main thread; a second one kills the process."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    signal.signal(signal.SIGTERM, stop)


def exit_on_sigterm() -> None:
    """Makes the first SIGTERM raise SystemExit(143), so that `finally` clauses run; a second one kills the process."""

    def leave(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def exit_code(request: KeyboardInterrupt) -> int:
    """The exit code of a job stopped by `request`."""
    return CODES[signal.SIGTERM if isinstance(request, Terminated) else signal.SIGINT]
