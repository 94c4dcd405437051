import re

import pytest

from jepa_jax.data.workers import timing


class Clock:
    """A clock that only `advance` changes."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds

    def advance(self, seconds):
        self.seconds += seconds


@pytest.fixture
def clock():
    return Clock()


def test_stopwatch_counts_one_stage_at_a_time(clock):
    watch = timing.Stopwatch(timing.READ, clock)
    clock.advance(1)
    watch.switch(timing.DECODE)
    clock.advance(2)
    watch.switch(timing.AUGMENT)
    clock.advance(4)
    watch.switch(timing.DECODE)
    clock.advance(8)
    assert watch.stop() == {"read": 1, "decode": 10, "augment": 4}


def go(throughput, clock, *, steps, seconds, waited, spent, clips=8, ready=1):
    """Adds steps of `seconds` each, with `waited` seconds of device waiting and the seconds `spent` per stage."""
    for _ in range(steps):
        throughput.add_seconds(spent)
        clock.advance(seconds)
        throughput.add_batch(clips, ready=ready, waited=waited)


def test_metrics_cover_the_time_since_the_last_call(clock):
    throughput = timing.Throughput(workers=2, cores=4, clock=clock)
    assert throughput.metrics() == {}
    go(throughput, clock, steps=1, seconds=50, waited=50.0, spent={})  # time before the first batch does not count
    go(throughput, clock, steps=10, seconds=2, waited=0.5, spent={"decode": 0.8}, ready=2)
    metrics = throughput.metrics()
    assert metrics == pytest.approx(
        {"data/clips_per_second": 4, "data/queue": 2, "data/wait_share": 0.25, "data/decode_ms": 100}
    )
    go(throughput, clock, steps=5, seconds=1, waited=0.0, spent={"decode": 0.4}, ready=0)
    assert throughput.metrics()["data/wait_share"] == 0


@pytest.mark.parametrize(
    ("workers", "spent", "stage", "knob"),
    [
        (
            2,
            {"read": 0.2, "decode": 1.4, "augment": 0.2, "receive": 0.1},
            "decode",
            r"workers=4 \(now 2, on 16 cores\)",
        ),
        (16, {"read": 1.0, "decode": 14.0, "transfer": 0.1}, "decode", "Try: read sets prepared by"),
        (2, {"read": 1.6, "decode": 0.2, "augment": 0.1}, "read", "workers=4 .*a faster disk"),
        (2, {"read": 0.1, "decode": 0.4, "augment": 1.2}, "augment", "--short-side"),
        (8, {"decode": 2.0, "receive": 0.2, "transfer": 0.7}, "transfer", "config.data.prefetch"),
        (2, {"decode": 0.1, "render": 0.8, "transfer": 0.1}, "render", "render_in_step"),
        (0, {"decode": 0.5, "transfer": 0.2}, "decode", r"workers=2 \(now 0"),
    ],
)
def test_slowest_stage_is_reported_once(clock, workers, spent, stage, knob):
    throughput = timing.Throughput(workers, cores=16, clock=clock)
    go(throughput, clock, steps=40, seconds=1, waited=0.3, spent=spent)
    warning = throughput.bottleneck_warning()
    assert f"waits 30% of the time for data. The bottleneck is {stage} (" in warning
    assert re.search(knob, warning), warning
    assert "\n" not in warning
    go(throughput, clock, steps=40, seconds=1, waited=0.3, spent=spent)
    assert throughput.bottleneck_warning() is None


def test_compilation_and_rare_waits_give_no_warning(clock):
    throughput = timing.Throughput(workers=2, cores=4, clock=clock)
    go(throughput, clock, steps=2, seconds=100, waited=90.0, spent={"decode": 1.0})
    go(throughput, clock, steps=40, seconds=1, waited=0.04, spent={"decode": 1.0})
    assert throughput.bottleneck_warning() is None
    go(throughput, clock, steps=19, seconds=1, waited=0.9, spent={"decode": 1.0})  # too few steps for a warning
    assert throughput.bottleneck_warning() is None
    go(throughput, clock, steps=1, seconds=1, waited=0.9, spent={"decode": 1.0})
    assert "waits 90%" in throughput.bottleneck_warning()
