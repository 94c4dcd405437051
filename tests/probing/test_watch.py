import dataclasses
import json
import os
import shutil
import threading
import time

import jax
import pytest

from jepa_jax.config import ConfigError
from jepa_jax.probing import job, watch
from jepa_jax.probing.config import ProbeConfig
from jepa_jax.training import checkpoint, step, workdir


@pytest.fixture
def settings(evaluation):
    probes = {"ridge": ProbeConfig(kind="ridge")}
    return dataclasses.replace(evaluation, probes=probes, beside_untrained=False)


@pytest.fixture
def run(training_run, tmp_path):
    """The tiny run of steps 3 and 7, told to have 7 steps: it is done."""
    folder = shutil.copytree(training_run, tmp_path / "run")
    workdir.save_config(folder, dataclasses.replace(workdir.load_config(folder), steps=7))
    return folder


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(watch, "POLL", 0.01)


def steps_of(records):
    return [record["checkpoint"]["step"] for record in records]


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_checkpoint_is_probed_once(settings, run, capsys, monkeypatch):
    records = watch.follow(settings, run)
    assert steps_of(records) == [3, 7]
    assert steps_of(lines(run / "evaluation.jsonl")) == [3, 7]
    assert lines(run / "evaluation.jsonl")[0]["schema"] == "jepa_jax/results"
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["step", "class", "ridge"]
    assert [line.split()[0] for line in told[2:]] == ["3", "7"]
    assert told[3].split()[1] == f"{100 * records[1]['results'][0]['accuracy']:.1f}"
    # Features of the last encoder only.
    kept = [json.loads(file.read_text())["origin"] for file in run.glob("features/*/key.json")]
    assert {origin.split(":")[-1] for origin in kept} == {"7 (ema)"}

    monkeypatch.setattr(job, "evaluate_encoder", pytest.fail)
    assert steps_of(watch.follow(settings, run)) == [3, 7]
    assert len(lines(run / "evaluation.jsonl")) == 2


def test_it_follows_a_run_that_begins_later(settings, run, tmp_path, capsys, monkeypatch):
    """Checkpoints come one after the other, the first is deleted meanwhile."""
    late, found, waiting = tmp_path / "late", [], threading.Event()
    monkeypatch.setattr(watch.time, "sleep", lambda _: waiting.set())
    thread = threading.Thread(target=lambda: found.extend(watch.follow(settings, late)))
    thread.start()
    assert waiting.wait(60)
    late.mkdir()
    shutil.copy(run / "config.json", late)
    for number in (3, 7):
        shutil.copytree(run / "checkpoints" / str(number), late / "checkpoints" / f"{number}.partial")
        (late / "checkpoints" / f"{number}.partial").rename(late / "checkpoints" / str(number))
        if number == 3:
            while not (late / "evaluation.jsonl").exists():
                assert thread.is_alive()
            shutil.rmtree(late / "checkpoints" / "3")
    thread.join(60)
    assert steps_of(found) == [3, 7]
    assert f"Waiting for a checkpoint in {late}" in capsys.readouterr().out


def test_a_run_that_has_stopped_before_its_end_is_told_of_once(settings, run, capsys, monkeypatch):
    workdir.save_config(run, dataclasses.replace(workdir.load_config(run), steps=8))
    (run / "metrics.jsonl").touch()
    looks = iter(range(4))

    def sleep(_):
        look = next(looks, None)
        if look is None:
            raise KeyboardInterrupt
        long_ago = time.time() - (300 if look == 0 else 1300)
        for path in (run / "metrics.jsonl", run / "checkpoints"):
            os.utime(path, (long_ago, long_ago))

    monkeypatch.setattr(watch.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watch.follow(settings, run)
    told = capsys.readouterr().out
    assert told.count(f"{run} was last written to 22 min ago. If its training has died, start it again") == 1


def test_last_only(settings, run):
    assert steps_of(watch.follow(settings, run, last_only=True)) == [7]


def test_a_checkpoint_deleted_while_it_is_read(settings, run, capsys, monkeypatch):
    verify = checkpoint.checksums.verify

    def verify_then_lose(folder, only=None):
        verify(folder, only)
        if only is None and folder.name == "3":
            shutil.rmtree(folder)

    monkeypatch.setattr(checkpoint.checksums, "verify", verify_then_lose)
    monkeypatch.setattr(watch.time, "sleep", lambda _: None)
    assert steps_of(watch.follow(settings, run)) == [7]
    assert "Step 3 was deleted before it could be read" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_passed_over(settings, run, capsys, monkeypatch):
    (run / "checkpoints" / "3" / "leaves.json").write_text("{}")
    monkeypatch.setattr(watch.time, "sleep", lambda _: None)
    assert steps_of(watch.follow(settings, run)) == [7]
    assert "Step 3 is passed over: No checkpoint to read" in capsys.readouterr().out


def test_what_a_kill_left_of_a_line_is_taken_away(settings, run):
    watch.follow(settings, run)
    file = run / "evaluation.jsonl"
    whole = file.read_text()
    file.write_text(whole[:-20])
    watch.follow(settings, run)
    assert [steps_of(lines(file)), file.read_text().count("\n")] == [[3, 7], 2]


def test_a_step_with_other_parameters_is_probed_again(settings, run):
    watch.follow(settings, run)
    config = workdir.load_config(run)
    state = jax.jit(lambda: step.init_state(step.build_learner(config), 1))()
    shutil.rmtree(run / "checkpoints")
    with checkpoint.Checkpointer(run, keep=1) as checkpointer:
        checkpointer.save(7, state)
    watch.follow(settings, run)
    assert steps_of(lines(run / "evaluation.jsonl")) == [3, 7, 7]
    fingerprints = [line["checkpoint"]["parameters_sha256"] for line in lines(run / "evaluation.jsonl")]
    assert len(set(fingerprints)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"a": 1}\n', r":1 is no result of an evaluation"), ("nonsense\n", ":1 is no result of an evaluation")],
)
def test_an_out_of_something_else(settings, run, tmp_path, content, message):
    (tmp_path / "out").write_text(content)
    with pytest.raises(ConfigError, match=message):
        watch.follow(settings, run, tmp_path / "out")


def test_an_out_of_other_settings(settings, run, tmp_path):
    watch.follow(settings, run)
    with pytest.raises(ConfigError, match=r"config.seed: 0 → 3\nName another --out"):
        watch.follow(dataclasses.replace(settings, seed=3), run)
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        watch.follow(settings, run, tmp_path)
