"""Two processes with two devices each train one model; they are killed, stopped, resumed and extended."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny_run
from waiting import wait_until

from jepa_jax.checkpoints import reader, tree_paths
from jepa_jax.config import Config
from jepa_jax.files.paths import locate
from jepa_jax.settings import parse
from jepa_jax.training import loop
from jepa_jax.training.setup import build_setup, init_state

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).parent.parent
LAUNCHER = REPOSITORY / "launch" / "local.sh"
SETTINGS = tiny_run.SETTINGS | {
    "steps": 40,
    "encoder": {"size": "128x2x2", "patch": 8, "levels": 2},  # wide enough for arrays to be split over fsdp
    "mesh": {"fsdp": 4},
    "checkpoint": {"every": 5, "keep": 10},
    "log": {"every": 1, "features_every": 10},
}
CONFIG_FILE = """
from jepa_jax.config import Config
from jepa_jax.settings import parse, to_config_dict

def get_config(recipe="baseline"):
    return to_config_dict(parse(Config, {settings}))
"""
STOP_WITHIN_S = 60


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "tiny.py"
    file.write_text(CONFIG_FILE.replace("{settings}", repr(SETTINGS)))
    return file


def environment():
    """The environment without the number of devices of this process."""
    flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    binaries = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(REPOSITORY), "PATH": binaries}


def start(config_file, workdir, *flags):
    """Starts the launcher with two processes of two devices each."""
    command = [LAUNCHER, "--processes=2", "--cpu-devices=2", f"--config={config_file}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *flags],
        env=environment() | {"TMPDIR": str(workdir.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process, seconds=300):
    out, errors = process.communicate(timeout=seconds)
    return process.returncode, out, errors


def records(workdir):
    file = workdir / "metrics.jsonl"
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def losses(workdir):
    return [record["loss"] for record in records(workdir)]


def parameters(workdir, number):
    """The arrays of a checkpoint, on one device."""
    setup = build_setup(parse(Config, SETTINGS))
    abstract = tree_paths.by_name(jax.eval_shape(lambda seed: init_state(setup, seed), 0))
    loaded = tree_paths.by_name(reader.load_arrays(locate(workdir) / "checkpoints" / str(number), abstract))
    return {name: np.asarray(leaf) for name, leaf in loaded.items()}


def assert_same_run(workdir, other):
    assert losses(workdir) == losses(other)
    expected = parameters(other, SETTINGS["steps"])
    for name, leaf in parameters(workdir, SETTINGS["steps"]).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)


def children(process):
    """Maps the number of each training process to its process id."""
    found = {}
    for pid in map(int, pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        if number := re.search(r"--process_id=(\d)", command):
            found[int(number[1])] = pid
    return found


@pytest.fixture(scope="module")
def together(tmp_path_factory, config_file):
    """An uninterrupted run of two processes."""
    workdir = tmp_path_factory.mktemp("together") / "run"
    code, out, errors = finish(start(config_file, workdir))
    assert code == 0, errors
    assert out.count("Training on") == 1
    return workdir


def test_two_processes_match_one_process(together, tmp_path):
    """Compares ten steps with one process on another mesh, and checks the files that each process writes."""
    loop.train(parse(Config, SETTINGS | {"mesh": {"data": 8}}), tmp_path / "alone")
    np.testing.assert_allclose(losses(together)[:10], losses(tmp_path / "alone")[:10], atol=1e-5)
    expected = parameters(tmp_path / "alone", 10)
    for name, leaf in parameters(together, 10).items():
        np.testing.assert_allclose(leaf, expected[name], atol=1e-4, err_msg=name)

    assert [record["step"] for record in records(together)] == list(range(1, 41))
    assert reader.saved_steps(together) == list(range(5, 41, 5))
    saved = json.loads((together / "checkpoints" / "40" / "leaves.json").read_text())
    assert saved["mesh"] == {"data": 1, "fsdp": 4, "processes": 2}
    assert {"ocdbt.process_0", "ocdbt.process_1"} <= {
        path.name for path in (together / "checkpoints" / "40" / "state").iterdir()
    }
    names = {path.name for path in together.iterdir()}
    assert {"config.json", "metrics.jsonl", "metrics.process-1.jsonl", "tensorboard"} <= names
    assert len(list((together / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize("number", [0, 1])
def test_killed_process_ends_the_run_which_can_resume_on_another_mesh(together, config_file, tmp_path, number):
    """The launcher names the dead process. The same mesh resumes bit for bit, another one up to rounding."""
    workdir = tmp_path / "run"
    process = start(config_file, workdir)
    wait_until(lambda: 10 in reader.saved_steps(workdir), process)
    pids = children(process)
    os.kill(pids[number], signal.SIGKILL)
    begun = time.monotonic()
    code, _, errors = finish(process, seconds=STOP_WITHIN_S)
    print(f"Process {number} killed: all had stopped after {time.monotonic() - begun:.1f} s.")
    assert code == 128 + signal.SIGKILL
    assert f"process {number} of 2 died (killed by SIGKILL)" in errors
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids.values())
    reached = reader.saved_steps(workdir)[-1]
    assert 10 <= reached < 40

    if number == 0:
        shutil.copytree(workdir, tmp_path / "elsewhere")
        flags = [f"--config={config_file}", f"--workdir={tmp_path / 'elsewhere'}", "--config.mesh.fsdp=2"]
        ended = subprocess.run(
            [sys.executable, "-m", "jepa_jax.train", *flags],
            env=environment() | {"JAX_NUM_CPU_DEVICES": "4"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert f"Resuming {tmp_path / 'elsewhere'} at step {reached}" in ended.stdout
        meshes = "data 1 × fsdp 4 × processes 2 and resumes on data 2 × fsdp 2 × processes 1"
        assert ended.stderr.count(f"Step {reached} was saved on {meshes}") == 1
        assert losses(tmp_path / "elsewhere")[:reached] == losses(together)[:reached]
        np.testing.assert_allclose(losses(tmp_path / "elsewhere"), losses(together), atol=1e-3)

    code, out, errors = finish(start(config_file, workdir))
    assert code == 0, errors
    assert f"Resuming {workdir} at step {reached}" in out
    assert "bit for bit" not in errors
    assert_same_run(workdir, together)


def test_signal_to_one_process_makes_all_save_the_same_step(together, config_file, tmp_path):
    workdir = tmp_path / "run"
    process = start(config_file, workdir)
    wait_until(lambda: reader.saved_steps(workdir) and len(records(workdir)) > 5, process)
    os.kill(children(process)[1], signal.SIGTERM)
    code, out, errors = finish(process)
    assert code == 143, errors
    stopped = int(re.search(r"Stopped by SIGTERM at step (\d+) of 40, which is saved", out)[1])
    assert reader.saved_steps(workdir)[-1] == stopped == len(records(workdir))

    newest = workdir / "checkpoints" / str(stopped)
    file = max(newest.glob("state/**/d/*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])  # all must agree on the checkpoint before it
    code, out, errors = finish(start(config_file, workdir))
    assert code == 0, errors
    assert errors.count(f"Skipping the checkpoint of step {stopped}, which is damaged") == 1
    assert_same_run(workdir, together)


def test_two_processes_extend_a_run(together, config_file, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(together, workdir)
    code, out, errors = finish(start(config_file, workdir, "--resume=extend", "--config.steps=42"))
    assert code == 0, errors
    assert out.count("Schedules hold: planned for 40 steps as before") == 1
    assert [record["step"] for record in records(workdir)] == list(range(1, 43))
    assert losses(workdir)[:40] == losses(together)
    assert json.loads((workdir / "config.json").read_text())["schedule_steps"] == 40
    assert len(json.loads((workdir / "extensions.json").read_text())) == 1


def free_port():
    with socket.socket() as open_socket:
        open_socket.bind(("localhost", 0))
        return open_socket.getsockname()[1]


def test_processes_with_different_settings_fail(config_file, tmp_path):
    """Process 1 has another seed. Both are started without the launcher, as on two machines."""
    cluster = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    command = [sys.executable, "-m", "jepa_jax.train", f"--config={config_file}", f"--workdir={tmp_path / 'run'}"]
    both = [
        subprocess.Popen(
            [*command, f"--process_id={number}", f"--config.seed={number}"],
            env=environment() | cluster | {"JAX_NUM_CPU_DEVICES": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    ended = [finish(process) for process in both]
    assert all(code != 0 for code, *_ in ended)
    output = "".join(errors for *_, errors in ended)
    assert "Process 1 was started differently from process 0 (0 → 1):\n  given.config.seed: 0 → 1" in output
    assert not (tmp_path / "run").exists()
