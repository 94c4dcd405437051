"""Communication between processes, and the same functions in a single process."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from jepa_jax.distributed import interrupt, processes
from jepa_jax.settings import ConfigError


def test_collectives_work_in_a_single_process(capsys):
    assert not processes.several()
    assert processes.is_main()
    assert processes.gather("a") == ["a"]
    assert processes.from_main(lambda: 3) == 3
    processes.require_same({"a": 1})
    processes.say("one line")
    assert capsys.readouterr().out == "one line\n"
    assert processes.run_together(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        processes.run_together(lambda: 1 // 0)


def test_processes_with_different_settings_are_named(monkeypatch):
    monkeypatch.setattr(processes, "gather", lambda value: [value, value, {"config": {"seed": 2}, "workdir": "b"}])
    with pytest.raises(ConfigError, match=r"(?s)Process 2 .*given\.config\.seed: 1 → 2\n.*given\.workdir: 'a' → 'b'"):
        processes.require_same({"config": {"seed": 1}, "workdir": "a"})


@pytest.fixture
def two_processes(monkeypatch):
    """The steps after which all processes stop, in place of JAX's preemption service."""
    agreed = []
    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(interrupt.multihost_utils, "reached_preemption_sync_point", lambda step: step in agreed)
    return agreed


def test_all_processes_stop_after_the_agreed_step(two_processes):
    two_processes.append(3)
    with interrupt.stop_on_signal() as stop:
        assert [stop.after(step) for step in (1, 2, 3)] == [False, False, True]
    assert stop.received is signal.SIGTERM  # the signal of another process


def test_ctrl_c_is_passed_on_to_all_processes(two_processes):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))  # in place of JAX's handler
    try:
        with interrupt.stop_on_signal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.after(1)  # no agreement yet
            two_processes.append(2)
            assert stop.after(2)
        assert stop.received is signal.SIGINT
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


TALK = """
import os, pathlib, sys, jax
from etils import epath
from jepa_jax.settings import ConfigError
from jepa_jax.distributed import cluster, processes

number, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
processes.join(cluster.find_cluster())

def fails():
    raise ConfigError("only process 0 could know")

def job():
    assert jax.process_count() == 2
    assert processes.is_main() == (number == 0)
    assert processes.gather("x" * (1000 * number)) == ["", "x" * 1000]
    assert processes.from_main(lambda: os.getpid()) == processes.gather(os.getpid())[0]
    try:
        processes.from_main(fails)
    except ConfigError as error:
        assert str(error) == "only process 0 could know"
    else:
        raise AssertionError
    processes.require_shared(epath.Path(folder))
    try:
        processes.require_shared(epath.Path(folder / str(number)))
    except ConfigError as error:
        assert "is not the same folder for process 1" in str(error), error
    else:
        raise AssertionError
    processes.say("said once")
    return 5 if sys.argv[3:] == ["fail"] and number == 1 else 0

processes.APPEAR_S = 0.5
code = processes.run_together(job)
print("left in order", flush=True)
sys.exit(code)
"""


def talk(folder, *flags):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for number in range(2):
        (folder / str(number)).mkdir(exist_ok=True)
    cluster = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TALK, str(number), str(folder), *flags],
            env=os.environ | cluster | {"JAX_PROCESS_ID": str(number), "XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    return [(*process.communicate(timeout=120), process.returncode) for process in started]


@pytest.mark.slow
def test_two_processes_communicate(tmp_path):
    ended = talk(tmp_path)
    assert [code for *_, code in ended] == [0, 0], ended
    assert ["said once" in out for out, *_ in ended] == [True, False]
    assert all("left in order" in out for out, *_ in ended)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]  # no temporary file is left


@pytest.mark.slow
def test_failing_process_does_not_wait_for_the_other(tmp_path):
    ended = talk(tmp_path, "fail")
    assert ended[1][2] == 5
    assert "Process 1 of 2 exits with code 5" in ended[1][1]
    assert ended[0][2] != 0  # it fails too, when its own work is done
