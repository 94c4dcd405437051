"""SIGTERM and Ctrl-C as a request to stop after the current step, of whichever process they reach."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from jax.experimental import multihost_utils

from jepa_jax.training import processes


class StopRequest:
    """Whether, and by which signal, this run was asked to stop."""

    received: signal.Signals | None = None

    def after(self, step: int) -> bool:
        """Whether to stop now that `step` updates are made: the same answer in all processes.

        With several processes it has to be asked after every step, and all stop after the one that they agree on.
        """
        if processes.several():
            if not multihost_utils.reached_preemption_sync_point(step):
                return False
            self.received = self.received or signal.SIGTERM
        return self.received is not None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Catches the first SIGTERM or SIGINT; a second one ends the process the usual way.

    With several processes jax's preemption service catches SIGTERM, all of them, and tells the other processes; Ctrl-C
    is passed on to it.
    """
    request = StopRequest()
    with_others = processes.several()

    def note(number: int, _: FrameType | None) -> None:
        request.received = signal.Signals(number)
        restore()
        if with_others:
            os.kill(os.getpid(), signal.SIGTERM)

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    caught = (signal.SIGINT,) if with_others else (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, note) for number in caught}
    try:
        yield request
    finally:
        restore()
