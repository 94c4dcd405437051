"""How far a job is, for the person who started it."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


class Progress:
    """A bar on a terminal, a line now and then elsewhere: how much is done, how fast, time left."""

    def __init__(
        self, total: int, unit: str, *, name: str = "", done: int = 0, clips_each: int = 1, shown: bool = True
    ):
        """`total` of `unit` are to come, of which `done` are done; speed is told in clips, `clips_each` a unit.

        What is not `shown` is only counted: every process of a run counts, one tells.

        The clock starts with the first update: what came before was mostly compilation.
        """
        self._total, self._unit, self._name, self._clips_each = total, unit, name, clips_each
        self._done = self._timed_from = done
        self._shown = shown
        self._first: float | None = None
        self._start = self._last_line = time.monotonic()
        self._bar = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc=name or None, unit=unit, dynamic_ncols=True)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def clips_per_second(self) -> float:
        """Mean since the first update; 0 before the second."""
        if self._first is None or self._done == self._timed_from:
            return 0.0
        return (self._done - self._timed_from) * self._clips_each / max(time.monotonic() - self._first, 1e-9)

    def update(self, done: int, note: str = "") -> None:
        """`done` are done in all; `note` is told beside the speed."""
        now = time.monotonic()
        self._done = done
        if self._first is None:
            self._first, self._timed_from = now, done
        speed = self.clips_per_second
        told = ", ".join(filter(None, [f"{speed:.1f} clips/s" if speed else "", note]))
        if self._bar is not None:
            self._bar.set_postfix_str(told, refresh=False)
            self._bar.update(done - self._bar.n)
        elif now - self._last_line >= LINE_EVERY or done == self._total:
            self._last_line = now
            place = f"{done}/{self._total}"
            place = f"{self._name}: {place} {self._unit}" if self._name else f"{self._unit} {place}"
            self.say(", ".join(filter(None, [place, told, self._time_left()])))

    def say(self, text: str) -> None:
        """A line of text on standard error that does not break the bar."""
        if self._shown:
            tqdm.write(text, file=sys.stderr)

    def _time_left(self) -> str:
        if self._done == self._total:
            return f"in {tqdm.format_interval(self.seconds)}"
        speed = self.clips_per_second / self._clips_each
        return f"{tqdm.format_interval((self._total - self._done) / speed)} left" if speed else "just compiled"

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
