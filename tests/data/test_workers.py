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
    return grain.MapDataset.range(count).map(lambda i: np.full(5000, i)).batch(2)


def read(dataset, processes, batch_bytes=1):
    iterator = workers.iterate(dataset, processes, batch_bytes)
    try:
        return [np.array(batch) for batch in iterator]
    finally:
        iterator.close()


def test_where_shared_memory_is_short_pipes_do(monkeypatch, caplog):
    wanted = read(batches(), 0)
    assert len(wanted) == 2
    np.testing.assert_array_equal(read(batches(), 1, batch_bytes=10**15), wanted)
    assert "--shm-size" in caplog.text


def test_workers_outlive_signals_meant_for_the_training_process():
    dataset = grain.MapDataset.range(6).map(lambda i: np.array([i, os.getpid()])).batch(1)
    iterator = workers.iterate(dataset, 1, 1)
    try:
        _, pid = next(iterator)[0]
        assert pid != os.getpid()
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert [int(batch[0, 0]) for batch in iterator] == [1, 2, 3, 4, 5]
    finally:
        iterator.close()


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_training_process(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("""
import os, time
import grain, numpy as np
from absl import app
from jepa_jax.data import workers

def main(_):
    dataset = grain.MapDataset.range(10**6).map(lambda i: np.array([i, os.getpid()])).batch(1)
    iterator = workers.iterate(dataset, 1, 1)
    print(next(iterator)[0, 1], flush=True)
    time.sleep(60)

if __name__ == "__main__":
    app.run(main)
""")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as process:
        worker = pathlib.Path("/proc") / process.stdout.readline().strip()
        assert worker.is_dir()
        process.kill()
        deadline = time.monotonic() + 20
        while worker.is_dir() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not worker.is_dir()
