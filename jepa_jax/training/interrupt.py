"""SIGTERM and Ctrl-C as a request to stop after the current step."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether, and by which signal, this process was asked to stop."""

    received: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.received is not None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Catches the first SIGTERM or SIGINT; a second one ends the process the usual way."""
    request = StopRequest()

    def note(number: int, _: FrameType | None) -> None:
        request.received = signal.Signals(number)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        restore()
