"""The single-machine launcher, tested with scripts instead of the training job."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from waiting import wait_until

SCRIPT = pathlib.Path(__file__).parent.parent.parent / "launch" / "local.sh"

# Replaces `python -m jepa_jax.train`. Its --workdir selects the behaviour. The launcher also finds a port with python.
STAND_IN = """#!/usr/bin/env bash
[ "$1" = -c ] && exec python3 "$@"
process=none does=none
for flag in "$@"; do
  case "$flag" in
    --process_id=*) process=${flag#*=} ;;
    --workdir=*) does=${flag#*=} ;;
  esac
done
echo "process $process: $*, devices ${JAX_NUM_CPU_DEVICES:-${JAX_LOCAL_DEVICE_IDS:-}}"
case "$does.$process" in
  fails.1) echo "the disk is full" >&2; exit 3 ;;
  killed.1) kill -KILL $$ ;;
  first.0) exit 4 ;;
  fails.* | killed.* | first.*) until [ -e reported ]; do sleep 0.05; done; exit 9 ;;
  together.*) touch "ready-$process"; until [ -e "end-$process" ]; do sleep 0.05; done; exit 1 ;;
  waits.*) trap 'exit 143' TERM; touch "ready-$process"; while :; do sleep 0.05; done ;;
esac
"""

WITH_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(STAND_IN)
    (tmp_path / "bin" / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}

    def start(*flags):
        return subprocess.Popen(
            # A shell cannot trap a signal that was ignored when it started, as Ctrl-C is in the background.
            [sys.executable, "-c", WITH_CTRL_C, str(SCRIPT), *flags],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def finish(process):
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


def wait_for(folder, names):
    wait_until(lambda: all((folder / name).exists() for name in names))


def started_by(launcher):
    """Maps the number of each process that the launcher has started to its process id."""
    found = {}
    for pid in pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        if number := re.search(r"--process_id=(\d)", command):
            found[int(number[1])] = int(pid)
    return found


def state(pid):
    """The state of a process: R runs, S sleeps, T is stopped, Z has ended."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_every_process_gets_the_flags_and_its_process_id(launch, tmp_path):
    code, out, errors = finish(launch("--processes=2", "--cpu-devices", "4", "--config", "c.py", "--workdir=a b"))
    assert code == 0, errors
    (line,) = out.splitlines()  # only the output of process 0 is shown
    assert "--processes=2 --process_id=0 --config c.py --workdir=a b, devices 4" in line
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]  # temporary files were deleted


@pytest.mark.parametrize(
    ("does", "code", "expected"),
    [
        ("fails", 3, ["process 1 of 3 died (exit code 3)", "process-1.log", "the disk is full"]),
        ("killed", 137, ["process 1 of 3 died (killed by SIGKILL)", "process-1.log"]),
        ("first", 4, ["process 0 of 3 died (exit code 4)", "its output is above"]),
    ],
)
def test_the_first_failing_process_is_reported(launch, tmp_path, does, code, expected):
    process = launch("--processes", "3", "--config", "c.py", f"--workdir={does}")
    errors = ""
    while " died (" not in errors:
        line = process.stderr.readline()
        assert line, errors
        errors += line
    (tmp_path / "reported").touch()
    returned, _, rest = finish(process)
    errors += rest
    assert returned == code
    assert errors.count(" died (") == 1
    for words in [*expected, "all processes have stopped"]:
        assert words in errors


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_killed_process_is_reported_even_if_all_ended_before_the_launcher_looked(launch, tmp_path, number):
    """The others fail at once when they lose their connection to it, with an exit code that says nothing."""
    process = launch("--processes", "3", "--config", "c.py", "--workdir=together")
    wait_for(tmp_path, [f"ready-{i}" for i in range(3)])
    processes = started_by(process)
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: state(process.pid) == "T")
    os.kill(processes[number], signal.SIGKILL)
    for i in range(3):
        (tmp_path / f"end-{i}").touch()
    wait_until(lambda: all(state(pid) == "Z" for pid in processes.values()))
    os.kill(process.pid, signal.SIGCONT)
    code, _, errors = finish(process)
    assert code == 128 + signal.SIGKILL
    assert f"Process {number} died first (killed by SIGKILL)" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_forwarded_to_all_processes(launch, tmp_path, number):
    process = launch("--processes", "2", "--config", "c.py", "--workdir=waits")
    wait_for(tmp_path, [f"ready-{i}" for i in range(2)])
    process.send_signal(number)
    code, _, errors = finish(process)
    assert code == 143, errors
    assert "died" not in errors


def test_dry_run_prints_the_commands(launch, tmp_path):
    flags = ("--processes", "2", "--gpus-each", "2", "--dry-run", "--config", "c.py:a", "--workdir=a b")
    code, out, _ = finish(launch(*flags))
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("JAX_LOCAL_DEVICE_IDS=0\\,1 python -m jepa_jax.train --coordinator=localhost:")
    assert second.startswith("JAX_LOCAL_DEVICE_IDS=2\\,3 python -m jepa_jax.train")
    assert "--process_id=1 --config c.py:a --workdir=a\\ b" in second
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--processes is missing"),
        (["--processes", "2"], "--config is missing"),
        (["--processes", "no"], "--processes needs a number of at least 1, not 'no'"),
        (["--processes"], "needs a number"),
        (["--processes", "2", "--config", "c", "--cpu-devices", "1", "--gpus-each", "1"], "choose one of"),
    ],
)
def test_invalid_arguments_are_reported(launch, flags, message):
    code, out, errors = finish(launch(*flags))
    assert (code, out) == (2, "")
    assert message in errors
