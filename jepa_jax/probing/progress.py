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
        self._start = time.monotonic()
        self._last_line = -LINE_EVERY  # the first batch gets a line: everything is compiled
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=name, unit=f" {unit}", dynamic_ncols=True) if terminal else None

    def update(self, count: int = 1) -> None:
        """`count` more are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            self._line()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def _line(self) -> None:
        rate = self._done / max(self.seconds, 1e-9)
        if self._done < self._total:
            left = f"{tqdm.format_interval((self._total - self._done) / rate)} left" if rate else "none yet"
        else:
            left = f"in {tqdm.format_interval(self.seconds)}"
        line = f"{self._name}: {self._done}/{self._total} {self._unit}, {rate:.1f} a second, {left}"
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            self._line()
