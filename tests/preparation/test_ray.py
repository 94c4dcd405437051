"""Preparation on a Ray cluster: same bytes after a killed worker and a killed node, and errors."""

import io
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from waiting import wait_until

from jepa_jax import prepare as command
from jepa_jax.data.preparation import build, sets
from jepa_jax.data.preparation.frames import JpegSettings

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """run(flag=value, …) returns the exit code and the standard error of `prepare folder`."""
    monkeypatch.setattr(command.exit_codes, "raise_on_sigterm", lambda: None)
    (tmp_path / "raw" / "a").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "raw" / "a" / "0.png")

    def run(**options):
        with flagsaver.flagsaver(source=str(tmp_path / "raw"), out=str(tmp_path / "out"), **options):
            return command.main(["prepare", "folder"]), capsys.readouterr().err

    return run


def test_missing_ray_prints_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, error = run(ray="auto")
    assert code == 1
    assert 'Error: --ray needs Ray: pip install "jepa_jax[ray]" on every machine.' in error


def test_other_commands_do_not_import_ray():
    check = "import sys, jepa_jax.prepare; sys.exit('ray' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", check], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize("options", [{"part": "1/2"}, {"finish": True}])
def test_ray_excludes_parts(run, options):
    code, error = run(ray="auto", **options)
    assert code == 1
    assert "Error: --ray writes all shards and completes the set; use it without --part and --finish." in error


@pytest.mark.parametrize(
    ("argument", "address"), [("--ray", "auto"), ("--ray=head:6379", "head:6379"), ("--noray", None)]
)
def test_address_is_optional(argument, address):
    parsed = flags.FlagValues()
    parsed["ray"] = flags.FLAGS["ray"]
    with flagsaver.flagsaver():
        parsed(["prepare", argument, "folder"])
        assert flags.FLAGS["ray"].value == address


def test_wrong_address_prints_an_error(run):
    pytest.importorskip("ray", reason="Ray is not installed")
    code, error = run(ray="127.0.0.1:1")
    assert code == 1
    assert "Error: --ray=127.0.0.1:1 does not answer; start one with `ray start --head`" in error


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of a head without CPUs and two nodes with one CPU each."""
    utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the workers
    started = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield started
    started.shutdown()


def writing_processes():
    """Process ids of Ray's workers that run a task."""
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes().startswith(b"ray::_in_worker"):
                found.append(int(file.parent.name))
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.slow
def test_cluster_with_a_killed_worker_and_a_killed_node_writes_the_bytes_of_one_job(tmp_path, cluster):
    with io.BytesIO() as jpeg:
        Image.new("RGB", (800, 800), (200, 0, 0)).save(jpeg, "jpeg")
        content = jpeg.getvalue()
    (tmp_path / "raw" / "a").mkdir(parents=True)
    for number in range(640):  # ten shards
        (tmp_path / "raw" / "a" / f"{number}.jpg").write_bytes(content)
    cluster.add_node(num_cpus=1)
    doomed = cluster.add_node(num_cpus=1)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "jepa_jax.prepare", "folder", f"--source={tmp_path / 'raw'}", f"--out={out}",
         "--short-side=96", f"--ray={cluster.address}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    notes = out / "preparing"
    wait_until(lambda: list(notes.glob("train-*.array_record")), process)
    writing = []
    wait_until(lambda: writing.extend(writing_processes()) or writing, process)
    os.kill(writing[0], signal.SIGKILL)
    wait_until(lambda: len(list(notes.glob("train-?????.json"))) >= 2, process)
    cluster.remove_node(doomed, allow_graceful=False)
    assert not (out / "prepared.json").exists()
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert "folder: 640 images, 640 frames" in stdout
    assert "640/640 images" in stderr
    build.prepare(sets.OPEN["folder"](tmp_path / "raw"), tmp_path / "whole", JpegSettings(96), 0)
    for file in (tmp_path / "whole").rglob("*"):
        if file.is_file():
            assert (out / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()
