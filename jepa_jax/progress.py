"""Progress of a job on standard error."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


class Progress:
    """A progress bar on a terminal, occasional lines elsewhere, with speed and remaining time."""

    def __init__(
        self, total: int, unit: str, *, name: str = "", done: int = 0, clips_each: int = 1, shown: bool = True
    ):
        """Starts at `done` of `total` units of `clips_each` clips.

        Unless `shown`, only measures the speed. Speed is measured from the first update, which excludes compilation.
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
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def clips_per_second(self) -> float:
        """Mean speed since the first update; 0 before the second update."""
        if self._first is None or self._done == self._timed_from:
            return 0.0
        return (self._done - self._timed_from) * self._clips_each / max(time.monotonic() - self._first, 1e-9)

    def update(self, done: int, note: str = "") -> None:
        """Updates the number of completed units, and displays `note` after the speed."""
        now = time.monotonic()
        self._done = done
        if self._first is None:
            self._first, self._timed_from = now, done
        speed = self.clips_per_second
        shown = ", ".join(filter(None, [f"{speed:.1f} clips/s" if speed else "", note]))
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(done - self._bar.n)
        elif now - self._last_line >= LINE_EVERY or done == self._total:
            self._last_line = now
            count = f"{done}/{self._total}"
            count = f"{self._name}: {count} {self._unit}" if self._name else f"{self._unit} {count}"
            self.say(", ".join(filter(None, [count, shown, self._time_left()])))

    def say(self, text: str) -> None:
        """Writes a line above the bar."""
        if self._shown:
            tqdm.write(text, file=sys.stderr)

    def _time_left(self) -> str:
        if self._done == self._total:
            return f"in {tqdm.format_interval(self.seconds)}"
        speed = self.clips_per_second / self._clips_each
        return f"{tqdm.format_interval((self._total - self._done) / speed)} left" if speed else "just compiled"

    def close(self) -> None:
        """Closes the bar and leaves it on the screen."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
