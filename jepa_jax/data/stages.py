"""Where the time of the data pipeline goes: a stopwatch for each clip, and what a run's log says of all of them."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

# In the worker processes, clip after clip …
READ, DECODE, AUGMENT = "read", "decode", "augment"
# … and in the thread that takes their batches over and puts them on the device.
RECEIVE, RENDER, TRANSFER = "receive", "render", "transfer"
IN_WORKERS = (READ, DECODE, AUGMENT)
IN_THREAD = (RECEIVE, RENDER, TRANSFER)

_PREPARE = "read sets prepared by python -m jepa_jax.prepare, with a --short-side no larger than needed"
KNOBS = {
    READ: "put the files on a faster disk",
    DECODE: _PREPARE,
    AUGMENT: _PREPARE,
    RECEIVE: "give /dev/shm more room (docker run --shm-size), or start several processes, each with its own rows",
    RENDER: "train on sprites alone, which the device renders (config.data.render_in_step)",
    TRANSFER: "raise config.data.prefetch, or start several processes, each with its own rows",
}

Switch = Callable[[str], None]
"""Is told the stage that begins."""


def unwatched(stage: str) -> None:
    """The `Switch` of those who do not want to know."""


class Stopwatch:
    """Seconds in each stage of one clip, of which one at a time is running."""

    def __init__(self, stage: str):
        """Starts in `stage`."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._stage, self._since = stage, time.perf_counter()

    def switch(self, stage: str) -> None:
        """From now on time counts for `stage`."""
        now = time.perf_counter()
        self.seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now

    def stop(self) -> dict[str, float]:
        """The seconds of all stages."""
        self.switch(self._stage)
        return dict(self.seconds)


class Throughput:
    """What the data pipeline of a run does and whether the device has to wait for it. Any thread may report.

    The device waits while it has nothing to do and the next batch is not there yet.
    """

    # The device may wait this share of the time; judged over as many seconds and batches, first after the second
    # batch: before that the step is compiled.
    MOST_WAITING = 0.05
    JUDGED_SECONDS, JUDGED_BATCHES = 10.0, 20

    def __init__(self, workers: int, cores: int):
        """For a pipeline with so many worker processes (0: none) on a machine with so many cores."""
        self._workers, self._cores = workers, cores
        self._lock = threading.Lock()
        self._taken = 0
        self._window, self._judged = _Window(), _Window()
        self._told = False

    def spent(self, seconds: Mapping[str, float]) -> None:
        """Adds seconds to stages."""
        with self._lock:
            for window in (self._window, self._judged):
                for stage, more in seconds.items():
                    window.seconds[stage] += more

    def took(self, clips: int, *, ready: int, waited: float) -> None:
        """The step took a batch of so many clips, for which the device waited; so many more stood ready."""
        with self._lock:
            self._taken += 1
            if self._taken == 1:
                self._window = _Window()
                return
            self._window.add(clips, ready, waited)
            if self._taken == 2:
                self._judged = _Window()
                return
            self._judged.add(clips, ready, waited)

    def metrics(self) -> dict[str, float]:
        """Of the time since the last call: clips a second, mean depth of the queue, share of time the device waited,
        milliseconds a clip of each stage that was measured. Empty where no batch was taken.
        """
        with self._lock:
            window, self._window = self._window, _Window()
        if not window.batches:
            return {}
        of_stages = {f"data/{stage}_ms": 1e3 * seconds / window.clips for stage, seconds in window.seconds.items()}
        return {
            "data/clips_per_second": window.clips / window.elapsed,
            "data/queue": window.ready / window.batches,
            "data/wait_share": window.waited / window.elapsed,
            **of_stages,
        }

    def complaint(self) -> str | None:
        """Once a run, if the device waits too much: which stage is the bottleneck and what to do about it."""
        with self._lock:
            window = self._judged
            if self._told or window.batches < self.JUDGED_BATCHES or window.elapsed < self.JUDGED_SECONDS:
                return None
            self._judged = _Window()
            share = window.waited / window.elapsed
            self._told = share > self.MOST_WAITING and bool(window.seconds)
        return self._blame(window, share) if self._told else None

    def _blame(self, window: "_Window", share: float) -> str:
        """The largest stage of whichever is busier, the worker processes or the thread that feeds the device."""
        in_workers = {stage: window.seconds[stage] for stage in IN_WORKERS if stage in window.seconds}
        in_thread = {stage: window.seconds[stage] for stage in IN_THREAD if stage in window.seconds}
        busy = sum(in_workers.values()) / (max(self._workers, 1) * window.elapsed)
        if not self._workers:
            in_workers, in_thread = {}, in_workers | in_thread
        stages = in_workers if in_workers and busy >= sum(in_thread.values()) / window.elapsed else in_thread
        worst = max(stages, key=lambda stage: stages[stage])
        total = sum(stages.values())
        shares = ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in stages.items())
        return (
            f"The device waits {share:.0%} of the time for data. The bottleneck is {worst} "
            f"({shares} of the time of {self._who(stages is in_workers)}). Try: {self._knob(worst)}."
        )

    def _who(self, of_workers: bool) -> str:
        if not of_workers:
            return "the thread that feeds the device"
        return "the one worker" if self._workers == 1 else f"the {self._workers} workers"

    def _knob(self, stage: str) -> str:
        # Reading waits rather than computes, so more processes than cores help; the rest computes.
        most = 2 * self._cores if stage == READ else self._cores
        if stage not in IN_WORKERS or self._workers >= most:
            return KNOBS[stage]
        more = min(2 * max(self._workers, 1), most)
        return f"--config.data.workers={more} (now {self._workers}, of {self._cores} cores); or {KNOBS[stage]}"


class _Window:
    """Sums since a moment."""

    def __init__(self):
        self.since = time.perf_counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.clips = self.batches = self.ready = 0
        self.waited = 0.0
        self.elapsed = 0.0

    def add(self, clips: int, ready: int, waited: float) -> None:
        self.clips += clips
        self.batches += 1
        self.ready += ready
        self.waited += waited
        self.elapsed = time.perf_counter() - self.since
