import dataclasses
import json
import os
import shutil

import jax
import mock_store
import pytest

from jepa_jax.checkpoints import integrity, manager
from jepa_jax.evaluation import frozen_encoder, job, watch
from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.evaluation.results import compare, results_file
from jepa_jax.files import ownership
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError
from jepa_jax.training.setup import build_setup, init_state


@pytest.fixture
def settings(evaluation):
    probes = {"ridge": ProbeConfig(kind="ridge")}
    return dataclasses.replace(evaluation, probes=probes, beside_untrained=False)


@pytest.fixture
def run(training_run, tmp_path):
    """The tiny run with checkpoints of steps 3 and 7. Its config has 7 steps, so it is finished."""
    folder = shutil.copytree(training_run, tmp_path / "run")
    workdir.save_config(folder, dataclasses.replace(workdir.load_config(folder), steps=7))
    return folder


def interrupt(_):
    """Raises KeyboardInterrupt instead of waiting."""
    raise KeyboardInterrupt


def steps_of(records):
    return [record["checkpoint"]["step"] for record in records]


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_checkpoint_is_evaluated_once(settings, run, capsys, monkeypatch):
    records = watch.follow(settings, run)
    assert steps_of(records) == [3, 7]
    assert steps_of(lines(run / "evaluation.jsonl")) == [3, 7]
    assert lines(run / "evaluation.jsonl")[0]["schema"] == "jepa_jax/results"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["step", "class", "ridge"]
    assert [line.split()[0] for line in printed[2:]] == ["3", "7"]
    assert printed[3].split()[1] == f"{100 * records[1]['results'][0]['accuracy']:.1f}"
    # Only the features of the last encoder are kept.
    kept = [json.loads(file.read_text())["origin"] for file in run.glob("features/*/key.json")]
    assert {origin.split(":")[-1] for origin in kept} == {"7 (ema)"}

    monkeypatch.setattr(job, "evaluate_encoder", pytest.fail)
    assert steps_of(watch.follow(settings, run)) == [3, 7]
    assert len(lines(run / "evaluation.jsonl")) == 2


def origins(run):
    return {json.loads(file.read_text())["origin"].split(":")[-1] for file in run.glob("features/*/key.json")}


def test_features_of_earlier_checkpoints_are_deleted_after_a_restart(settings, run):
    steps = run / "checkpoints"
    shutil.move(steps / "7", run.parent / "7")
    with pytest.raises(KeyboardInterrupt):
        watch.follow(settings, run, sleep=interrupt)  # waiting for step 7
    assert origins(run) == {"3 (ema)"}
    shutil.move(run.parent / "7", steps / "7")
    assert steps_of(watch.follow(settings, run)) == [3, 7]
    assert origins(run) == {"7 (ema)"}


def test_watch_follows_a_run_that_starts_later(settings, run, tmp_path, capsys):
    """While the watch waits, the run first starts with step 3, then step 7 replaces step 3."""
    late = tmp_path / "late"

    def start():
        late.mkdir()
        shutil.copy(run / "config.json", late)
        shutil.copytree(run / "checkpoints" / "3", late / "checkpoints" / "3")

    def replace():
        shutil.copytree(run / "checkpoints" / "7", late / "checkpoints" / "7")
        shutil.rmtree(late / "checkpoints" / "3")

    events = [start, replace]
    records = watch.follow(settings, late, sleep=lambda _: events.pop(0)())
    assert steps_of(records) == [3, 7]
    assert not events
    assert f"Waiting for a checkpoint in {late}" in capsys.readouterr().out


def test_run_that_stopped_before_its_end_is_reported_once(settings, run, capsys):
    """The first check is 300 s after the last write, later ones 1,300 s."""
    workdir.save_config(run, dataclasses.replace(workdir.load_config(run), steps=8))
    (run / "metrics.jsonl").touch()
    for path in (run / "metrics.jsonl", run / "checkpoints"):
        os.utime(path, (10_000, 10_000))
    times = iter([10_300.0, 11_300.0, 11_300.0, 11_300.0])
    checks = iter(range(3))

    def sleep(_):
        if next(checks, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch.follow(settings, run, sleep=sleep, clock=lambda: next(times))
    message = f"{run} was last written to 22 min ago. If its training has died, start it again"
    assert capsys.readouterr().out.count(message) == 1


def test_last_only_evaluates_the_newest_checkpoint(settings, run):
    assert steps_of(watch.follow(settings, run, last_only=True)) == [7]


def test_checkpoint_deleted_while_it_is_read_is_skipped(settings, run, capsys, monkeypatch):
    verify = integrity.verify

    def verify_then_lose(folder, only=None):
        verify(folder, only)
        if only is None and folder.name == "3":
            shutil.rmtree(folder)

    monkeypatch.setattr(integrity, "verify", verify_then_lose)
    assert steps_of(watch.follow(settings, run, sleep=lambda _: None)) == [7]
    assert "Step 3 was deleted before it could be read" in capsys.readouterr().out


def test_damaged_checkpoint_is_skipped(settings, run, capsys):
    (run / "checkpoints" / "3" / "leaves.json").write_text("{}")
    assert steps_of(watch.follow(settings, run, sleep=lambda _: None)) == [7]
    assert "Skipping step 3: No usable checkpoint" in capsys.readouterr().out


def test_incomplete_line_left_by_a_kill_is_removed(settings, run):
    watch.follow(settings, run)
    file = run / "evaluation.jsonl"
    whole = file.read_text()
    file.write_text(whole[:-20])
    watch.follow(settings, run)
    assert [steps_of(lines(file)), file.read_text().count("\n")] == [[3, 7], 2]


@pytest.mark.slow
def test_step_with_other_parameters_is_evaluated_again(settings, run):
    watch.follow(settings, run)
    config = workdir.load_config(run)
    state = jax.jit(lambda: init_state(build_setup(config), 1))()
    shutil.rmtree(run / "checkpoints")
    with manager.Checkpointer(run, keep=1) as checkpointer:
        checkpointer.save(7, state)
    watch.follow(settings, run)
    assert steps_of(lines(run / "evaluation.jsonl")) == [3, 7, 7]
    fingerprints = [line["checkpoint"]["parameters_sha256"] for line in lines(run / "evaluation.jsonl")]
    assert len(set(fingerprints)) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"a": 1}\n', r":1 is not a result of an evaluation"), ("nonsense\n", ":1 is not a result of an evaluation")],
)
def test_out_with_other_content_raises(settings, run, tmp_path, content, message):
    (tmp_path / "out").write_text(content)
    with pytest.raises(ConfigError, match=message):
        watch.follow(settings, run, tmp_path / "out")


def test_second_watch_of_a_run_raises(settings, run):
    """The first one is waiting for the next checkpoint. Its results are kept."""
    workdir.save_config(run, dataclasses.replace(workdir.load_config(run), steps=8))
    refused = []

    def second(_):
        with pytest.raises(ownership.HeldError) as error:
            watch.follow(settings, run)
        refused.append(str(error.value))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch.follow(settings, run, sleep=second)
    assert f"evaluation.jsonl is in use by process {os.getpid()} on" in refused[0]
    assert "wait for the other job, or name another --out" in refused[0]
    assert steps_of(lines(run / "evaluation.jsonl")) == [3, 7]
    assert not list(run.glob("*.lock"))


def test_waiting_for_a_run_does_not_create_its_folder(settings, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        watch.follow(settings, tmp_path / "late", sleep=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert "Waiting for a checkpoint in" in capsys.readouterr().out


def test_run_in_a_bucket_is_watched(settings, run, tmp_path, monkeypatch):
    """Only results are written to the bucket, and nothing to a local folder named gs:."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ownership, "SETTLE_S", 0.05)
    with mock_store.mounted(tmp_path / "bucket", monkeypatch) as bucket:
        shutil.copytree(run, bucket / "run")
        before = {path.relative_to(bucket) for path in bucket.rglob("*")}
        assert steps_of(watch.follow(settings, "gs://bucket/run", last_only=True)) == [7]
        assert steps_of(watch.follow(settings, "gs://bucket/run")) == [3, 7]
        assert steps_of(lines(bucket / "run" / "evaluation.jsonl")) == [7, 3]
        after = {path.relative_to(bucket) for path in bucket.rglob("*")}
        assert {str(path) for path in after - before} == {"run/evaluation.jsonl"}
        shown = compare.compare(["gs://bucket/run/evaluation.jsonl", "gs://bucket/run/evaluation.jsonl:3"])
        assert "gs://bucket/run/evaluation.jsonl:3" in shown
        encoder = frozen_encoder.load("gs://bucket/run:3")
        assert (encoder.step, encoder.source) == (3, "gs://bucket/run")
        untrained = frozen_encoder.load("random:gs://bucket/run")
        assert (untrained.weights, untrained.source) == ("random", "gs://bucket/run")
        assert untrained.fingerprint == frozen_encoder.load(f"random:{run}").fingerprint
        with pytest.raises(ConfigError, match="gs://bucket/nothing does not exist"):
            frozen_encoder.load("random:gs://bucket/nothing")
    assert not (tmp_path / "gs:").exists()


@pytest.mark.parametrize(
    ("reference", "message"),
    [("gs:/bucket/run", "write gs://bucket/run"), ("hdfs://name/run", "hdfs:// is not supported; expected")],
)
def test_invalid_urls_raise_instead_of_waiting(settings, reference, message):
    for act in (
        lambda: watch.follow(settings, reference),
        lambda: frozen_encoder.load(reference),
        lambda: frozen_encoder.load(f"random:{reference}"),
        lambda: job.evaluate(settings, "random", f"{reference}/results.json"),
    ):
        with pytest.raises(ConfigError, match=message):
            act()


def test_out_with_results_of_other_settings_raises(settings, run, tmp_path):
    watch.follow(settings, run)
    with pytest.raises(ConfigError, match=r"config.seed: 0 → 3\nName another --out"):
        watch.follow(dataclasses.replace(settings, seed=3), run)
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        watch.follow(settings, run, tmp_path)


def test_classes_may_have_any_name(settings, run, pictures, tmp_path):
    names = {"blue": "b\u2028", "red": "r\udcff"}
    for part in ("train", "test"):
        for name, odd in names.items():
            shutil.copytree(pictures / part / name, tmp_path / part / odd)
    train, test = (dataclasses.replace(settings.train, path=str(tmp_path / part)) for part in ("train", "test"))
    settings = dataclasses.replace(settings, train=train, test=test)
    first = watch.follow(settings, run)
    again = watch.follow(settings, run)
    assert steps_of(again) == [3, 7]
    assert [tuple(record["results"][0]["class_names"]) for record in first] == [tuple(names.values())] * 2
    assert [result.class_names for result in results_file.read(run / "evaluation.jsonl")["results"]] == [
        tuple(names.values())
    ]
