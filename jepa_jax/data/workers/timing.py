"""Timing of the input pipeline: a stopwatch per clip, and the metrics and warnings of a run."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

# Stages in the worker processes, per clip.
READ, DECODE, AUGMENT = "read", "decode", "augment"
# Stages in the thread that receives batches and transfers them to the device.
RECEIVE, RENDER, TRANSFER = "receive", "render", "transfer"
IN_WORKERS = (READ, DECODE, AUGMENT)
IN_THREAD = (RECEIVE, RENDER, TRANSFER)

_PREPARE = "read sets prepared by python -m jepa_jax.prepare, with a --short-side no larger than needed"
REMEDIES = {
    READ: "put the files on a faster disk",
    DECODE: _PREPARE,
    AUGMENT: _PREPARE,
    RECEIVE: "enlarge /dev/shm (docker run --shm-size), or start several processes, each with its own rows",
    RENDER: "train on sprites only, which the device renders (config.data.render_in_step)",
    TRANSFER: "raise config.data.prefetch, or start several processes, each with its own rows",
}

Clock = Callable[[], float]
OnStage = Callable[[str], None]
"""Called with the stage that begins."""


def no_op(stage: str) -> None:
    """No-op stage callback."""


class Stopwatch:
    """Measures the seconds spent in each stage of a clip; one stage runs at a time."""

    def __init__(self, stage: str, clock: Clock = time.perf_counter):
        """Starts in `stage`; `clock` returns seconds."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._clock = clock
        self._stage, self._since = stage, clock()

    def switch(self, stage: str) -> None:
        """Ends the current stage and starts `stage`."""
        now = self._clock()
        self.seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now

    def stop(self) -> dict[str, float]:
        """Returns the seconds of all stages."""
        self.switch(self._stage)
        return dict(self.seconds)


class Throughput:
    """Measures the throughput of a run's input pipeline and how long the device waits for it. Thread-safe.

    The device waits while it is idle and the next batch is not ready.
    """

    # The device may wait for this share of the time, measured over at least this many seconds and batches. The first
    # two batches are excluded, since the step is compiled then.
    MAX_WAIT_SHARE = 0.05
    MIN_SECONDS, MIN_BATCHES = 10.0, 20

    def __init__(self, workers: int, cores: int, clock: Clock = time.perf_counter):
        """For a pipeline with `workers` processes (0: none) on a machine with `cores`; `clock` returns seconds."""
        self._workers, self._cores = workers, cores
        self._lock = threading.Lock()
        self._taken = 0
        self._clock = clock
        self._window, self._since_warmup = _Window(clock), _Window(clock)
        self._warned = False

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Adds seconds to each of the given stages."""
        with self._lock:
            for window in (self._window, self._since_warmup):
                for stage, more in seconds.items():
                    window.seconds[stage] += more

    def add_batch(self, clips: int, *, ready: int, waited: float) -> None:
        """Records a batch: its number of clips, the batches ready at that time, and the seconds the device waited."""
        with self._lock:
            self._taken += 1
            if self._taken == 1:
                self._window = _Window(self._clock)
                return
            self._window.add(clips, ready, waited)
            if self._taken == 2:
                self._since_warmup = _Window(self._clock)
                return
            self._since_warmup.add(clips, ready, waited)

    def metrics(self) -> dict[str, float]:
        """Metrics since the last call; empty if there was no batch.

        They are clips per second, mean queue depth, the share of time the device waited, and milliseconds per clip of
        each measured stage.
        """
        with self._lock:
            window, self._window = self._window, _Window(self._clock)
        if not window.batches:
            return {}
        of_stages = {f"data/{stage}_ms": 1e3 * seconds / window.clips for stage, seconds in window.seconds.items()}
        return {
            "data/clips_per_second": window.clips / window.elapsed,
            "data/queue": window.ready / window.batches,
            "data/wait_share": window.waited / window.elapsed,
            **of_stages,
        }

    def bottleneck_warning(self) -> str | None:
        """Returns a warning once per run if the device waits too long: the bottleneck and how to remove it."""
        with self._lock:
            window = self._since_warmup
            if self._warned or window.batches < self.MIN_BATCHES or window.elapsed < self.MIN_SECONDS:
                return None
            self._since_warmup = _Window(self._clock)
            share = window.waited / window.elapsed
            self._warned = share > self.MAX_WAIT_SHARE and bool(window.seconds)
        return self._describe_bottleneck(window, share) if self._warned else None

    def _describe_bottleneck(self, window: "_Window", share: float) -> str:
        """Names the slowest stage of the worker processes or of the feeding thread, whichever is busier."""
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
            f"({shares} of the time of {self._who(stages is in_workers)}). Try: {self._remedy(worst)}."
        )

    def _who(self, of_workers: bool) -> str:
        if not of_workers:
            return "the thread that feeds the device"
        return "the one worker" if self._workers == 1 else f"the {self._workers} workers"

    def _remedy(self, stage: str) -> str:
        # Reading is I/O-bound, so more processes than cores help; the other stages are compute-bound.
        most = 2 * self._cores if stage == READ else self._cores
        if stage not in IN_WORKERS or self._workers >= most:
            return REMEDIES[stage]
        more = min(2 * max(self._workers, 1), most)
        return f"--config.data.workers={more} (now {self._workers}, on {self._cores} cores), or {REMEDIES[stage]}"


class _Window:
    """Sums since a point in time."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.since = clock()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.clips = self.batches = self.ready = 0
        self.waited = 0.0
        self.elapsed = 0.0

    def add(self, clips: int, ready: int, waited: float) -> None:
        self.clips += clips
        self.batches += 1
        self.ready += ready
        self.waited += waited
        self.elapsed = self.clock() - self.since
