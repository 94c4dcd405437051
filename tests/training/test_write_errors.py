"""If a disk is full or read-only, one error has the folder, the step, the last checkpoint and advice."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tiny_run
from tensorboardX import event_file_writer

from jepa_jax import data
from jepa_jax.checkpoints import integrity
from jepa_jax.config import Config
from jepa_jax.files import write_errors
from jepa_jax.settings import parse
from jepa_jax.training import loop, metrics

ROOT = pathlib.Path(__file__).parents[2]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fails_on(number, function, error=FULL):
    """Wraps a function so that call `number` raises."""
    calls = []

    def call(*arguments, **named):
        calls.append(1)
        if len(calls) == number:
            raise error
        return function(*arguments, **named)

    return call


def train(folder, **changes):
    return loop.train(parse(Config, tiny_run.SETTINGS | changes), folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some of your quota"),
        (errno.EROFS, "Make it writable (it is mounted read-only)"),
        (errno.EACCES, "Make it writable"),
    ],
)
def test_metrics_that_cannot_be_written_raise(tmp_path, monkeypatch, number, advice):
    error = OSError(number, os.strerror(number), str(tmp_path / "run" / "metrics.jsonl"))
    monkeypatch.setattr(metrics.MetricsWriter, "write", fails_on(3, metrics.MetricsWriter.write, error))
    with pytest.raises(write_errors.WriteError) as raised:
        train(tmp_path / "run")
    assert str(raised.value) == (
        f"Cannot write the metrics of step 3 in {tmp_path / 'run'}. {tmp_path / 'run' / 'metrics.jsonl'}: "
        f"{os.strerror(number)}. {advice} and run the same command again. The last good checkpoint is step 2."
    )


@pytest.mark.slow
def test_tensorboard_events_that_cannot_be_written_raise(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(event_file_writer.EventsWriter, "flush", fails_on(5, event_file_writer.EventsWriter.flush))
    with pytest.raises(write_errors.WriteError, match=r"metrics of step 5 .* The last good checkpoint is step 4\."):
        train(tmp_path / "run")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [FULL, ValueError("RESOURCE_EXHAUSTED: Error writing [OS error 28: No space left on device]")]
)
def test_checkpoint_that_cannot_be_written_raises(tmp_path, monkeypatch, error):
    monkeypatch.setattr(integrity, "write", fails_on(2, integrity.write, error))
    with pytest.raises(write_errors.WriteError) as raised:
        train(tmp_path / "run")
    assert str(raised.value) == (
        f"Cannot write the checkpoint of step 4 in {tmp_path / 'run'}. {tmp_path / 'run'}: No space left on device. "
        "Free some space and run the same command again. The last good checkpoint is step 2."
    )
    monkeypatch.undo()
    assert train(tmp_path / "run") == loop.Outcome(step=6)


@pytest.mark.slow
def test_disk_that_stays_full_is_reported_once(tmp_path, monkeypatch):
    """Closing the files fails too, but the first error is raised."""

    def full(*_, **__):
        raise FULL

    monkeypatch.setattr(metrics.MetricsWriter, "write", full)
    monkeypatch.setattr(metrics.MetricsWriter, "close", full)
    with pytest.raises(write_errors.WriteError, match=r"metrics of step 1 .* There is no checkpoint yet\."):
        train(tmp_path / "run")


def test_workdir_that_cannot_be_created_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "open_workdir", fails_on(1, loop.open_workdir))
    with pytest.raises(write_errors.WriteError, match=r"the settings of the run in .*run\. .*Nothing was trained"):
        train(tmp_path / "run")


@pytest.mark.slow
def test_data_that_cannot_be_read_raise_no_write_error(tmp_path, monkeypatch):
    error = OSError(errno.EACCES, "Permission denied", "/data/clip.mp4")
    monkeypatch.setattr(data.TrainBatches, "__next__", fails_on(2, data.TrainBatches.__next__, error))
    with pytest.raises(PermissionError, match="clip"):
        train(tmp_path / "run")


def test_other_errors_have_no_advice():
    assert write_errors.explain(ValueError("shape"), "run") is None
    assert write_errors.explain(FileNotFoundError(errno.ENOENT, "No such file", "x"), "run") is None


CONFIG = """
from jepa_jax.config import Config
from jepa_jax.settings import parse, to_config_dict

def get_config():
    return to_config_dict(parse(Config, {settings}))
"""
LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that grows past the limit is an error
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_command_prints_write_error_without_traceback(tmp_path):
    settings = tiny_run.SETTINGS | {"steps": 40, "checkpoint": {"every": 1000}}
    (tmp_path / "tiny.py").write_text(CONFIG.format(settings=settings))
    command = ["jepa_jax.train", f"--config={tmp_path / 'tiny.py'}", f"--workdir={tmp_path / 'run'}"]
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, *command, "--compilation_cache="],
        env=kept | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("Error: Cannot write the metrics of step "), ended.stderr
    assert f"in {tmp_path / 'run'}" in last
    assert "File too large. Raise the limit on the size of files (ulimit -f)" in last
    assert "There is no checkpoint yet." in last
    assert "Traceback" not in ended.stderr
    first_line, *_ = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(first_line)["step"] == 1
