"""Interrupted jobs exit with a nonzero code and report what is kept. Jobs on a full disk name the folder."""

import errno
import importlib
import os
import signal
import sys
import types

import pytest
import tiny_run
from absl import flags

from jepa_jax.cli import config_flag
from jepa_jax.config import defaults
from jepa_jax.data.preparation import build, sets
from jepa_jax.evaluation import job, watch
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.training import loop


def set_flags(module, monkeypatch, **flags):
    for name, value in flags.items():
        monkeypatch.setattr(module, name, types.SimpleNamespace(value=value))


@pytest.fixture
def entry_point(monkeypatch):
    """entry_point(name): imports the module of a job and removes the flags of other jobs, which have the same names."""
    names = ("train", "evaluate", "prepare")

    def load(name):
        for entry in names:
            monkeypatch.delitem(sys.modules, f"jepa_jax.{entry}", raising=False)
        for flag in set(flags.FLAGS):
            if flags.FLAGS.find_module_defining_flag(flag, "jepa_jax.put_back").startswith("jepa_jax."):
                kept[flag] = flags.FLAGS[flag]
                delattr(flags.FLAGS, flag)
        known.update(flags.FLAGS)
        return importlib.import_module(f"jepa_jax.{name}")

    kept, known = {}, set()
    yield load
    for flag in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, flag)
    for flag, definition in kept.items():
        flags.FLAGS[flag] = definition


def job_that_receives(number):
    """A job that receives a signal while it runs."""

    def job(*_, **__):
        signal.raise_signal(number)
        pytest.fail("The signal did not interrupt the job.")

    return job


@pytest.fixture(autouse=True)
def handlers():
    kept = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, kept)


CASES = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "code"), CASES)
def test_signal_stops_preparation(entry_point, tmp_path, monkeypatch, capsys, number, code):
    prepare = entry_point("prepare")
    set_flags(prepare, monkeypatch, OUT=str(tmp_path), SOURCE=str(tmp_path), VERIFY=False)
    set_flags(prepare, monkeypatch, SHORT_SIDE=64, QUALITY=90, WORKERS=0)
    monkeypatch.setitem(sets.OPEN, "folder", lambda source: source)
    monkeypatch.setattr(build, "prepare", job_that_receives(number))
    assert prepare.main(["prepare", "folder"]) == code
    assert "Stopped. Run the same command again to resume." in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), CASES)
@pytest.mark.parametrize("watching", [False, True])
def test_signal_stops_evaluation(entry_point, tmp_path, monkeypatch, capsys, number, code, watching):
    evaluate = entry_point("evaluate")
    set_flags(evaluate, monkeypatch, CONFIG=defaults(EvalConfig), CHECKPOINT=str(tmp_path), CACHE=None, COMPARE=False)
    set_flags(evaluate, monkeypatch, WATCH=watching, LAST_ONLY=False, OUT=None)
    monkeypatch.setattr(evaluate, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(job, "evaluate", job_that_receives(number))
    monkeypatch.setattr(watch, "follow", job_that_receives(number))
    assert evaluate.main(["evaluate"]) == code
    assert "Stopped; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outcome", "probe", "code"),
    [
        (loop.Outcome(3, "SIGTERM"), "", 143),
        (loop.Outcome(3, "SIGINT"), "", 130),
        (loop.Outcome(6, "SIGTERM"), "", 0),
        (loop.Outcome(6, "SIGTERM"), "eval/sprites", 143),  # the evaluation has not been run
        (loop.Outcome(6), "", 0),
    ],
)
def test_exit_code_of_training(entry_point, tmp_path, monkeypatch, outcome, probe, code):
    train = entry_point("train")
    settings = tiny_run.SETTINGS | {"probe": probe}
    set_flags(train, monkeypatch, CONFIG=settings, WORKDIR=str(tmp_path), RESUME="auto")
    monkeypatch.setattr(config_flag, "given", lambda setting: setting == "probe")
    monkeypatch.setattr(loop, "train", lambda *_, **__: outcome)
    monkeypatch.setattr(train, "evaluate_run", pytest.fail)
    assert train.run(["train"]) == code


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("Disk quota exceeded")]
)
def test_preparation_on_a_full_disk_names_the_folder(entry_point, tmp_path, monkeypatch, capsys, error):
    prepare = entry_point("prepare")

    def full(*_):
        raise error

    set_flags(prepare, monkeypatch, OUT=str(tmp_path), SOURCE=str(tmp_path), VERIFY=False)
    set_flags(prepare, monkeypatch, SHORT_SIDE=64, QUALITY=90, WORKERS=0)
    monkeypatch.setitem(sets.OPEN, "folder", full)
    assert prepare.main(["prepare", "folder"]) == 1
    assert capsys.readouterr().err.startswith(f"Error: {tmp_path}: ")


def test_evaluation_on_a_full_disk_names_the_folder(entry_point, tmp_path, monkeypatch, capsys):
    evaluate = entry_point("evaluate")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    set_flags(evaluate, monkeypatch, CONFIG=defaults(EvalConfig), CHECKPOINT=str(tmp_path), CACHE=None, COMPARE=False)
    set_flags(evaluate, monkeypatch, WATCH=False, LAST_ONLY=False, OUT=str(tmp_path / "results.json"))
    monkeypatch.setattr(evaluate, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(job, "evaluate", full)
    assert evaluate.main(["evaluate"]) == 1
    assert capsys.readouterr().err == (
        f"Error: {tmp_path}: No space left on device. Free some space and run the same command again.\n"
    )
