import errno
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading

import grain
import jax
import numpy as np
import pytest
from waiting import wait_until

from jepa_jax.data.workers import pool, shared_buffers
from jepa_jax.settings import ConfigError


def counted(file):
    """counted(file)(make): `make`, which also appends a byte to `file`, to show how far the workers are ahead."""

    def wrap(make):
        def made(i):
            with open(file, "ab", buffering=0) as opened:
                opened.write(b".")
            return make(i)

        return made

    return wrap


def batches(count=4):
    # Local functions are pickled by value, because workers cannot import this file.
    return grain.MapDataset.range(count).map(lambda i: {"x": np.full(5000, i)}).batch(2)


def read(dataset, processes, batch_bytes=1):
    iterator = pool.BatchPrefetcher(dataset, processes, batch_bytes)
    try:
        return [batch["x"] for batch in iterator]
    finally:
        iterator.close()
        iterator.close()
        assert list(iterator) == []


@pytest.mark.slow
def test_files_are_used_if_shared_memory_is_too_small(monkeypatch, caplog):
    wanted = read(batches(), 0)
    assert len(wanted) == 2
    usage = shared_buffers.shutil.disk_usage("/")
    monkeypatch.setattr(shared_buffers.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    np.testing.assert_array_equal(read(batches(), 1, batch_bytes=100_000), wanted)
    assert "--shm-size" in caplog.text


@pytest.mark.slow
def test_batch_that_does_not_fit_raises_with_a_smaller_setting(monkeypatch):
    usage = shared_buffers.shutil.disk_usage("/")
    monkeypatch.setattr(shared_buffers.shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    fallocate = os.posix_fallocate

    def small_disk(file, start, size):
        if size > 2**19:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fallocate(file, start, size)

    monkeypatch.setattr(shared_buffers.os, "posix_fallocate", small_disk)
    with pytest.raises(ConfigError, match=r"from 3 workers: .*No space left on device.* at most 2 workers"):
        read(grain.MapDataset.range(9).map(lambda i: {"x": np.zeros(9)}), 3, batch_bytes=2**17)
    assert read(batches(), 2, batch_bytes=2**17)


def test_fewer_slots_are_reserved_for_large_batches():
    gigabyte = 2**30
    assert shared_buffers.affordable_slots(2, 5, gigabyte // 4, 100 * gigabyte) == 5
    assert shared_buffers.affordable_slots(4, 5, gigabyte // 2, 100 * gigabyte) == 2, "limited to 4 GiB in total"
    assert shared_buffers.affordable_slots(4, 5, gigabyte // 4, 3 * gigabyte) == 3, "limited by the free space"
    assert shared_buffers.affordable_slots(12, 5, gigabyte, 100 * gigabyte) == 1, "at least one per worker"
    assert shared_buffers.affordable_slots(12, 5, gigabyte, 11 * gigabyte) == 0


@pytest.mark.slow
def test_reserved_memory_is_logged_once(capfd):
    for _ in range(2):
        read(batches(12), 2, batch_bytes=23 * 2**20)  # a size that no other test uses
    assert capfd.readouterr().err.count("Reserved 138 MiB of shared memory for batches: 2 workers, 3 batches") == 1


@pytest.mark.slow
@pytest.mark.parametrize("one_slot", [False, True])
def test_workers_wait_for_a_slot_and_never_pickle_arrays(one_slot, tmp_path, monkeypatch):
    """Includes the case of one slot per worker. Closing does not wait for blocked workers."""
    if one_slot:
        monkeypatch.setattr(shared_buffers, "MAX_BYTES", 1)
    got, copy_out = [], shared_buffers.copy_out

    def watched(batch, opened):
        got.append(type(batch["x"]))
        return copy_out(batch, opened)

    monkeypatch.setattr(shared_buffers, "copy_out", watched)
    made = tmp_path / "made"
    make = counted(str(made))(lambda i: {"x": np.full(5000, i)})
    iterator = pool.BatchPrefetcher(grain.MapDataset.range(80).map(make).batch(2), 2, 80_000)
    for i in range(30):
        assert next(iterator)["x"][:, 0].tolist() == [2 * i, 2 * i + 1]
        if i in (3, 10, 29):  # with one slot, each worker has filled it and waits with the next batch
            wait_until(lambda i=i: made.stat().st_size >= 2 * (i + 1 + 4))
    workers = multiprocessing.active_children()
    assert len(workers) >= 2
    iterator.close()
    assert [worker.exitcode for worker in workers] == [0] * len(workers)  # they would be killed if they did not stop
    assert not any(issubclass(kind, np.ndarray) for kind in got)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_reused_slots_do_not_overwrite_earlier_batches(processes, tmp_path):
    """Reads slowly and fast; arrays have several dtypes and sizes, some too large for a slot, some empty."""

    def make(i):
        arrays = {"a": np.full((50, 100), i, np.int32), "b": np.full(7, i), "c": np.full(9000, -i, np.float32)}
        return arrays | {"large": np.full(100_000, i), "none": np.zeros((0, 3)), "word": str(i)}

    made = tmp_path / "made"
    iterator = pool.BatchPrefetcher(grain.MapDataset.range(40).map(counted(str(made))(make)), processes, 60_000)
    kept, on_device = [], []
    for i, batch in enumerate(iterator):
        if i in (5, 6, 20):
            wait_until(lambda i=i: made.stat().st_size >= i + 1 + 2 * processes)
        kept.append(batch)
        on_device.append(jax.device_put(batch["a"]))
        # Putting it on a CPU device makes no further copy.
        assert on_device[-1].unsafe_buffer_pointer() == batch["a"].ctypes.data
    iterator.close()
    for i, batch in enumerate(kept):
        np.testing.assert_array_equal(on_device[i], batch["a"])
        for key, value in make(i).items():
            np.testing.assert_array_equal(batch[key], value)


def test_workers_ignore_sigint_and_sigterm():
    dataset = grain.MapDataset.range(6).map(lambda i: {"x": np.array([i, os.getpid()])}).batch(1)
    iterator = pool.BatchPrefetcher(dataset, 1, 1)
    try:
        _, pid = next(iterator)["x"][0]
        assert pid != os.getpid()
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert [int(batch["x"][0, 0]) for batch in iterator] == [1, 2, 3, 4, 5]
    finally:
        iterator.close()


def reading(path, act="pass"):
    """Returns a dataset of 12 batches with worker process ids. Reading item 7 of `path` first executes `act`."""

    path = str(path)

    def read(i):
        import os
        import signal

        from jepa_jax.data import faults
        from jepa_jax.data.workers import worker_process

        try:
            with worker_process.reading(f"{path}/{i}"):
                if i == 7:
                    exec(act, {"os": os, "signal": signal, "path": path})
                return {"x": np.array([i, os.getpid(), 0])}
        except faults.DecodeError as error:
            return {"x": np.array([i, os.getpid(), 1]), "reason": error.reason}

    return grain.MapDataset.range(12).map(read)


ONCE = "if not os.path.exists(path + '.done'): open(path + '.done', 'w').close(); os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_worker_is_replaced_without_losing_batches(tmp_path, processes, caplog):
    iterator = pool.BatchPrefetcher(reading(tmp_path / "set", ONCE), processes, 1)
    got = [batch["x"].tolist() for batch in iterator]
    iterator.close()
    assert [i for i, _, _ in got] == list(range(12))
    assert not any(skipped for _, _, skipped in got)
    assert len({pid for _, pid, _ in got}) == 2 * processes
    assert f"SIGKILL, while reading {tmp_path}/set/7" in caplog.text


@pytest.mark.slow
def test_file_that_crashes_a_worker_is_skipped_with_a_reason(tmp_path):
    iterator = pool.BatchPrefetcher(reading(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)"), 2, 1)
    got = list(iterator)
    iterator.close()
    assert [batch["x"][0] for batch in got] == list(range(12))
    assert [batch["x"][2] for batch in got] == [i == 7 for i in range(12)]
    assert got[7]["reason"] == "reading it crashes the process (SIGSEGV)"


@pytest.mark.slow
def test_hanging_file_is_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pool, "WARN_AFTER_S", 0.1)
    pipe, waits = tmp_path / "pipe", tmp_path / "waits"
    os.mkfifo(pipe)
    iterator = pool.BatchPrefetcher(reading(tmp_path, "open(path + '/waits', 'w').close(); open(path + '/pipe')"), 1, 1)
    got = [next(iterator) for _ in range(7)]
    wait_until(waits.exists)

    def release():
        wait_until(lambda: f"The workers are reading: {tmp_path}/7" in caplog.text)
        pipe.open("w").close()

    thread = threading.Thread(target=release, daemon=True)
    thread.start()
    got += iterator
    thread.join()
    iterator.close()
    assert [batch["x"][0] for batch in got] == list(range(12))
    assert f"The workers are reading: {tmp_path}/7." in caplog.text


@pytest.mark.slow
def test_workers_that_always_die_raise(tmp_path):
    iterator = pool.BatchPrefetcher(reading(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)"), 1, 1)
    with pytest.raises(
        pool.WorkersDiedError, match=rf"3 times in a row .*SIGKILL, while reading {tmp_path}/7.*data.workers"
    ):
        list(iterator)
    iterator.close()


SCRIPT = """
import os
import grain, numpy as np
from absl import app
from jepa_jax.data.workers import pool
from waiting import wait_until

def main(_):
    dataset = grain.MapDataset.range({count}).map(lambda i: {{"x": np.array([i, os.getpid()])}}).batch(1)
    batches = pool.BatchPrefetcher(dataset, 1, 1)
    print(next(batches)["x"][0, 1], flush=True)
    {rest}

if __name__ == "__main__":
    app.run(main)
"""


TESTS = pathlib.Path(__file__).parents[1]


def start(tmp_path, count, rest):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(count=count, rest=rest))
    environment = os.environ | {"PYTHONPATH": f"{os.getcwd()}:{TESTS}"}
    return subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_exit_after_the_training_process_is_killed(tmp_path):
    with start(tmp_path, count=10**6, rest="input()") as process:
        worker = pathlib.Path("/proc") / process.stdout.readline().strip()
        assert worker.is_dir()
        process.kill()
        wait_until(lambda: not worker.is_dir())


@pytest.mark.slow
def test_close_frees_all_shared_memory(tmp_path):
    # Python reports leaked memory at exit. The script waits for grain, which frees memory in a thread.
    rest = "kept = list(batches); batches.close(); wait_until(lambda: 'psm_' not in open('/proc/self/maps').read())"
    with start(tmp_path, count=5, rest=rest) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "leaked" not in errors
