import os
import pathlib
import signal
import subprocess
import sys
import time

import grain
import numpy as np
import pytest

from jepa_jax.data import workers


def batches(count=4):
    # Local functions travel to the workers by value: they cannot import this file.
    return grain.MapDataset.range(count).map(lambda i: {"x": np.full(5000, i)}).batch(2)


def read(dataset, processes, batch_bytes=1):
    iterator = workers.Ahead(dataset, processes, batch_bytes)
    try:
        return [batch["x"] for batch in iterator]
    finally:
        iterator.close()
        iterator.close()
        assert list(iterator) == []


def test_where_shared_memory_is_short_pipes_do(monkeypatch, caplog):
    wanted = read(batches(), 0)
    assert len(wanted) == 2
    np.testing.assert_array_equal(read(batches(), 1, batch_bytes=10**15), wanted)
    assert "--shm-size" in caplog.text


def test_workers_outlive_signals_meant_for_the_training_process():
    dataset = grain.MapDataset.range(6).map(lambda i: {"x": np.array([i, os.getpid()])}).batch(1)
    iterator = workers.Ahead(dataset, 1, 1)
    try:
        _, pid = next(iterator)["x"][0]
        assert pid != os.getpid()
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert [int(batch["x"][0, 0]) for batch in iterator] == [1, 2, 3, 4, 5]
    finally:
        iterator.close()


SCRIPT = """
import os, time
import grain, numpy as np
from absl import app
from jepa_jax.data import workers

def main(_):
    dataset = grain.MapDataset.range({count}).map(lambda i: {{"x": np.array([i, os.getpid()])}}).batch(1)
    batches = workers.Ahead(dataset, 1, 1)
    print(next(batches)["x"][0, 1], flush=True)
    {rest}

if __name__ == "__main__":
    app.run(main)
"""


def start(tmp_path, count, rest):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(count=count, rest=rest))
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_training_process(tmp_path):
    with start(tmp_path, count=10**6, rest="time.sleep(60)") as process:
        worker = pathlib.Path("/proc") / process.stdout.readline().strip()
        assert worker.is_dir()
        process.kill()
        deadline = time.monotonic() + 20
        while worker.is_dir() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not worker.is_dir()


@pytest.mark.slow
def test_closing_leaves_no_shared_memory_behind(tmp_path):
    # grain frees it in a thread of its own: hence the second. Python tells of what is left when it ends.
    with start(tmp_path, count=5, rest="kept = list(batches); batches.close(); time.sleep(1)") as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "leaked" not in errors
