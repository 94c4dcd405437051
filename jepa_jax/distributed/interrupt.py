"""Turns SIGTERM or Ctrl-C in any process into a request to stop all processes after the current step."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from jax.experimental import multihost_utils

from jepa_jax.distributed import processes


class StopRequest:
    """A request to stop. `received` is the signal, or None if there was none."""

    received: signal.Signals | None = None

    def after(self, step: int) -> bool:
        """Whether to stop after `step` updates. All processes get the same answer.

        With several processes, call this after every step: they agree on one step to stop after.
        """
        if processes.several():
            if not multihost_utils.reached_preemption_sync_point(step):
                return False
            self.received = self.received or signal.SIGTERM
        return self.received is not None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Catches the first SIGTERM or SIGINT; a second one has its default effect.

    With several processes JAX's preemption service catches every SIGTERM and notifies the other processes; Ctrl-C is
    forwarded to it as SIGTERM.
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
