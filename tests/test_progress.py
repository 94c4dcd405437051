import pytest

from jepa_jax import progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_speed_and_remaining_time_exclude_compilation(clock, capsys):
    with progress.Progress(100, "step", done=9, clips_each=8) as bar:
        clock.now += 30  # compiling
        bar.update(10, "loss 1")
        for done in (20, 30, 40):
            clock.now += 5
            bar.update(done, "loss 1")
        clock.now += 15
        bar.update(70, "loss 1")
        clock.now += 15
        bar.update(100, "loss 1")
        assert bar.seconds == 75
    assert capsys.readouterr().err.splitlines() == [
        "step 10/100, loss 1, just compiled",
        "step 40/100, 16.0 clips/s, loss 1, 00:30 left",
        "step 70/100, 16.0 clips/s, loss 1, 00:15 left",
        "step 100/100, 16.0 clips/s, loss 1, in 01:15",
    ]


def test_speed_is_measured_when_progress_is_hidden(clock, capsys):
    """Only one of several processes prints its progress."""
    bar = progress.Progress(2, "step", clips_each=4, shown=False)
    bar.update(1)
    clock.now += 2
    bar.update(2)
    bar.say("nothing")
    assert bar.clips_per_second == 2
    assert capsys.readouterr().err == ""
