import threading

import numpy as np
import pytest

from jepa_jax import data


class Numbers:
    """A source of batches that counts its batches and calls of `close`."""

    def __init__(self, stop=10, error=None):
        self.given, self.closed, self.stop, self.error = 0, 0, stop, error

    def __iter__(self):
        return self

    def __next__(self):
        if self.given == self.stop:
            raise self.error or StopIteration
        self.given += 1
        return {"item": np.array([self.given])}

    def close(self):
        self.closed += 1


def put(batch):
    return int(batch["item"][0])


@pytest.mark.parametrize("size", [0, 1, 3])
def test_prefetch_keeps_the_order_and_stops(size):
    batches = data.device_prefetch(Numbers(), put, size)
    assert list(batches) == list(range(1, 11))
    assert list(batches) == []
    batches.close()


def test_prefetch_reads_ahead_by_the_requested_size():
    """Takes each batch once three more are ready; the source records how far it is ahead."""
    changed, taken, ahead = threading.Condition(), 0, []

    class Watched(Numbers):
        def __next__(self):
            with changed:
                batch = super().__next__()
                ahead.append(self.given - taken)
                changed.notify_all()
            return batch

    numbers = Watched(stop=50)
    batches = data.device_prefetch(numbers, put, 3)
    for number in range(47):
        with changed:
            assert changed.wait_for(lambda n=number: numbers.given >= n + 3, timeout=60)
            taken += 1
        assert next(batches) == number + 1
    assert list(batches) == [48, 49, 50]
    batches.close()
    assert max(ahead) == 3


def test_close_ends_the_thread_and_closes_the_source():
    numbers = Numbers(stop=100)
    before = set(threading.enumerate())
    batches = data.device_prefetch(numbers, put, 2)
    next(batches)
    batches.close()
    batches.close()
    assert numbers.closed
    assert not set(threading.enumerate()) - before
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("size", [0, 2])
def test_source_errors_are_raised_after_earlier_batches(size):
    batches = data.device_prefetch(Numbers(stop=2, error=OSError("disk gone")), put, size)
    assert [next(batches), next(batches)] == [1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(batches)
    batches.close()


def test_device_put_errors_are_raised():
    def fail(batch):
        raise MemoryError("device full")

    batches = data.device_prefetch(Numbers(), fail, 2)
    with pytest.raises(MemoryError, match="device full"):
        next(batches)
    batches.close()
