"""How far a run is, for the person who started it."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


class Progress:
    """A bar on a terminal, a line now and then elsewhere: step, clips/s, loss, learning rate, time left."""

    def __init__(self, step: int, steps: int, batch_size: int):
        """At `step` of `steps`; the clock starts with the first update, whose time is mostly compilation."""
        self._first, self._steps, self._batch_size = step, steps, batch_size
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True) if sys.stderr.isatty() else None

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        """After update number `step` (1-based)."""
        now = time.monotonic()
        if step == self._first + 1:
            self._first, self._start = step, now
        rate = (step - self._first) / max(now - self._start, 1e-9)
        clips = rate * self._batch_size
        if self._bar is not None:
            self._bar.set_postfix_str(f"{clips:.1f} clips/s, loss {loss:.4f}, lr {learning_rate:.2e}", refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._last_line >= LINE_EVERY or step == self._steps:
            self._last_line = now
            left = f"{tqdm.format_interval((self._steps - step) / rate)} left" if rate else "compiled"
            print(
                f"step {step}/{self._steps}  {clips:.1f} clips/s  loss {loss:.4f}  lr {learning_rate:.2e}  {left}",
                flush=True,
            )

    def say(self, text: str) -> None:
        """A line of text that does not break the bar."""
        tqdm.write(text, file=sys.stderr if self._bar is not None else sys.stdout)
        sys.stdout.flush()

    def clips_per_second(self, step: int) -> float:
        """Mean since the first update of this process; 0 before the second."""
        return (step - self._first) * self._batch_size / max(time.monotonic() - self._start, 1e-9)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
