"""How far an evaluation is, for the person who started it."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


class Progress:
    """A bar on a terminal, a line now and then elsewhere: how many are done, how many a second, time left."""

    def __init__(self, total: int, name: str, unit: str):
        """`total` of `unit` (clips, epochs) will come; the clock starts now."""
        self._name, self._unit, self._total, self._done = name, unit, total, 0
        self._start = self._timed_from = self._last_line = time.monotonic()
        self._untimed = 0
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=name, unit=f" {unit}", dynamic_ncols=True) if terminal else None

    def update(self, count: int = 1) -> None:
        """`count` more are done."""
        first, now = not self._done, time.monotonic()
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif first:
            self._last_line = self._timed_from = now
            self._untimed = count  # mostly compilation: of no use for the time left
            self._line("compiled")
        elif now - self._last_line >= LINE_EVERY and self._done < self._total:
            self._last_line = now
            rate = (self._done - self._untimed) / (now - self._timed_from)
            left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
            self._line(f"{rate:.1f} a second, {left} left")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def _line(self, text: str) -> None:
        print(f"{self._name}: {self._done}/{self._total} {self._unit}, {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done:
            rate = self._done / max(self.seconds, 1e-9)
            self._line(f"{rate:.1f} a second, in {tqdm.format_interval(self.seconds)}")
