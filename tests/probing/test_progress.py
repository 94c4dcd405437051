import pytest

from jepa_jax.probing import progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_lines_tell_rate_and_time_left_without_compilation(clock, capsys):
    with progress.Progress(100, "train features", "clips") as bar:
        clock.now += 30  # compiling
        bar.update(10)
        for _ in range(4):
            clock.now += 5
            bar.update(10)
        clock.now += 25
        bar.update(50)
        assert bar.seconds == 75
    assert capsys.readouterr().err.splitlines() == [
        "train features: 10/100 clips, compiled",
        "train features: 40/100 clips, 2.0 a second, 00:30 left",
        "train features: 100/100 clips, 1.3 a second, in 01:15",
    ]
