"""Lock files: waiting for an owner, taking over stale locks, and errors of owners that lost their lock."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from concurrent import futures

import mock_store
import pytest
from etils import epath
from waiting import wait_until

from jepa_jax.files import lock_stores, ownership
from jepa_jax.files.lock_owner import Owner, process_start
from jepa_jax.files.lock_stores import lock_file
from jepa_jax.files.ownership import HeldError, LostError

REPOSITORY = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Shortens the intervals that pass in real time; tests of waiting pass a clock of their own."""
    for name, seconds in {"BEAT_S": 0.05, "SETTLE_S": 0.1}.items():
        monkeypatch.setattr(ownership, name, seconds)


class Clock:
    """Time that passes only by waiting.

    Attributes:
        now: the time in seconds.
    """

    def __init__(self, act=lambda: None):
        """Calls `act` whenever somebody has waited."""
        self.now, self._act = 0.0, act

    def sleep(self, seconds):
        """Waits."""
        self.now += seconds
        self._act()

    def acquire(self, file, **options):
        """Acquires the lock `file` in this time."""
        return ownership.acquire(file, "It", sleep=self.sleep, clock=lambda: self.now, **options)


@pytest.fixture(params=["disk", "gs"])
def file(request, tmp_path, monkeypatch):
    """A lock file on a disk or in an object store."""
    with contextlib.ExitStack() as stack:
        if request.param == "gs":
            stack.enter_context(mock_store.mounted(tmp_path / "bucket", monkeypatch))
        yield epath.Path("gs://bucket/lock.json" if request.param == "gs" else tmp_path / "lock.json")


def write_lock(file, owner, renewed):
    """Writes a lock that was last renewed `renewed` seconds after the epoch."""
    file.write_text(json.dumps(dataclasses.asdict(owner) | {"renewed": renewed}))
    if "://" not in str(file):
        os.utime(file, (renewed, renewed))


def lock_of(file, age=0.0, **changes):
    """Writes the lock of another owner, last renewed `age` seconds ago."""
    owner = dataclasses.replace(Owner.this_process(), **changes)
    write_lock(file, owner, time.time() - age)
    return owner


def acquire_from_live_owner(file, age=0.0, **changes):
    """Acquires the lock of an owner that renews it every 10 s and whose clock is `age` seconds late."""
    owner, start = lock_of(file, age, **changes), time.time()
    clock = Clock(lambda: write_lock(file, owner, start - age + clock.now // 10 * 10))
    try:
        clock.acquire(file)
    finally:
        assert json.loads(file.read_text())["token"] == owner.token


ELSEWHERE = {"host": "node7", "pid": 4711, "machine": "another boot"}


def test_acquire_names_the_live_owner(file):
    with ownership.owned(file, "The folder", "Wait."), pytest.raises(HeldError) as error:
        ownership.acquire(file, "The folder", "Wait.")
    assert f"The folder is in use by process {os.getpid()} on {socket.gethostname()}, since 20" in str(error.value)
    assert "Wait. The lock" in str(error.value)
    assert not file.exists()
    ownership.acquire(file, "The folder").release()  # the lock is free again


def test_lock_of_a_dead_process_is_acquired_without_waiting(file):
    """Even if its parent has not waited for it yet."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lock_of(file, pid=process.pid, started=process_start(process.pid))
        with pytest.raises(HeldError, match=f"process {process.pid} on"):
            ownership.acquire(file, "It")
        process.kill()
        wait_until(lambda: not process_start(process.pid))
        clock = Clock()
        clock.acquire(file).release()
        assert clock.now == (ownership.SETTLE_S if "://" in str(file) else 0)


def test_reused_process_id_is_not_the_owner(file):
    lock_of(file, pid=os.getpid(), started="1")
    lock = ownership.acquire(file, "It")
    assert json.loads(file.read_text())["token"] == lock.owner.token
    lock.release()


@pytest.mark.parametrize(("age", "seconds"), [(0.0, 60), (300.0, 25)])
def test_acquire_waits_for_a_silent_owner_on_another_machine(file, age, seconds, capsys):
    """The wait is longer if the last renewal is recent, because the owner may still be alive."""
    lock_of(file, age, **ELSEWHERE)
    clock = Clock()
    lock = clock.acquire(file)
    assert seconds <= clock.now <= seconds + 1
    assert json.loads(file.read_text())["token"] == lock.owner.token
    lock.release()
    errors = capsys.readouterr().err
    assert "It was in use by process 4711 on node7" in errors
    assert "does not respond; taking over" in errors


@pytest.mark.parametrize("age", [0.0, 3600.0, -3600.0])
def test_live_owner_on_another_machine_keeps_the_lock_despite_clock_offset(file, age):
    with pytest.raises(HeldError, match="process 4711 on node7"):
        acquire_from_live_owner(file, age, **ELSEWHERE)


def test_equal_host_names_do_not_mean_the_same_machine(file):
    """A restarted pod keeps its host name, but its process ids belong to other processes or to none."""
    with pytest.raises(HeldError):
        acquire_from_live_owner(file, pid=2**22 + 1, machine="another boot")


def test_owner_renews_its_lock(file):
    with ownership.owned(file, "It"):
        first = lock_file(file).look().renewed
        wait_until(lambda: lock_file(file).look().renewed != first)
        assert lock_file(file).look().renewed > first


def test_second_owner_can_wait_for_the_lock(file, capsys):
    first = ownership.acquire(file, "It")
    clock = Clock(lambda: first.release() if clock.now > 600 else None)
    clock.acquire(file, wait=True).release()
    assert clock.now > 600  # for as long as the owner holds it
    assert capsys.readouterr().err.count("Waiting for another job: It is in use by process") == 1


def test_owner_detects_that_it_lost_the_lock(file):
    lock = ownership.acquire(file, "It")
    lock.check()
    other = lock_of(file, **ELSEWHERE)
    with pytest.raises(LostError, match="taken over by process 4711 on node7, since 20"):
        lock.check()
    wait_until(lambda: lock.seems_lost)
    lock.release()
    assert json.loads(file.read_text())["token"] == other.token  # it must not remove the lock of another owner

    file.unlink()
    lock = ownership.acquire(file, "It")
    file.unlink()
    with pytest.raises(LostError, match="was removed"):
        lock.check()
    lock.release()
    assert not file.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"token": 1, "renewed": 0}', "\0\1"])
def test_damaged_lock_is_taken_over(file, content):
    file.write_text(content)
    lock = Clock().acquire(file)
    assert json.loads(file.read_text())["token"] == lock.owner.token
    lock.release()


def test_concurrent_threads_own_the_lock_one_at_a_time(file, monkeypatch):
    """All threads start with the same stale lock. Each holds it until all others have tried to acquire it."""
    monkeypatch.setattr(ownership, "SETTLE_S", 0.5)  # longer than a thread takes between looking and writing
    monkeypatch.setattr(ownership, "POLL_S", 0.01)
    lock_of(file, pid=os.getpid(), started="1")
    inside, most, done, tries = [], [], set(), dict.fromkeys(range(4), 0)

    def work(number):
        def sleep(seconds):
            tries[number] += 1
            time.sleep(seconds)

        lock = ownership.acquire(file, "It", wait=True, sleep=sleep)
        inside.append(number)
        before = dict(tries)
        wait_until(lambda: all(tries[other] > before[other] or other in done for other in tries if other != number))
        most.append(len(inside))
        lock.check()
        inside.remove(number)
        lock.release()
        done.add(number)

    with futures.ThreadPoolExecutor(len(tries)) as pool:
        list(pool.map(work, tries))
    assert done == set(tries)
    assert max(most) == 1


def test_discarding_a_stale_lock_keeps_a_newer_one(tmp_path):
    """Another process may take over the lock after this one has read the stale lock."""
    file = epath.Path(tmp_path / "lock.json")
    lock_of(file, **ELSEWHERE)
    stale = lock_file(file).look()
    new = lock_of(file)
    lock_file(file).discard(stale)
    assert lock_file(file).look().owner == new
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_releases_the_lock(tmp_path, number):
    file = tmp_path / "lock.json"
    program = (
        "import os, signal, sys\nfrom jepa_jax.distributed import exit_codes\n"
        "from jepa_jax.files import ownership\n"
        "exit_codes.exit_on_sigterm()\n"
        "reader, writer = os.pipe()\nos.set_blocking(writer, False)\nsignal.set_wakeup_fd(writer)\n"
        "with ownership.owned(sys.argv[1], 'It'):\n    print('in', flush=True)\n    os.read(reader, 1)  # any signal\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout.readline() == b"in\n"
        assert json.loads(file.read_text())["pid"] == process.pid
        process.send_signal(number)
        assert process.wait(300) == (143 if number == signal.SIGTERM else -signal.SIGINT)
    assert not file.exists()


def test_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_stores, "text", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        ownership.acquire(tmp_path / "lock.json", "It")
    assert not list(tmp_path.iterdir())
