"""Only one run at a time uses a working directory, and a run that loses its directory stops."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal

import chex
import mock_store
import pytest
import tiny_run
from waiting import wait_until

from jepa_jax import data
from jepa_jax.checkpoints import reader
from jepa_jax.config import Config
from jepa_jax.files import ownership
from jepa_jax.files.ownership import HeldError
from jepa_jax.run_dir import run_lock, workdir
from jepa_jax.run_dir.run_lock import WorkdirLostError
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import loop


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in {"BEAT_S": 0.05, "SILENT_S": 0.3, "STALE_S": 1.0, "SETTLE_S": 0.05}.items():
        monkeypatch.setattr(ownership, name, seconds)


def config_with(**changes):
    return parse(Config, tiny_run.SETTINGS | changes)


@contextlib.contextmanager
def before_batch(monkeypatch, number, act):
    """Calls `act` before the batch of step `number`."""
    take, taken = data.TrainBatches.__next__, []

    def acting(batches):
        taken.append(1)
        if len(taken) == number:
            act()
        return take(batches)

    with monkeypatch.context() as patch:
        patch.setattr(data.TrainBatches, "__next__", acting)
        yield


def losses(folder):
    return [(r["step"], r["loss"]) for r in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())]


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    loop.train(config_with(), folder)
    return folder


@pytest.mark.slow
def test_run_holds_its_lock_until_it_ends(whole, tmp_path, monkeypatch):
    """Also if a signal stops it."""
    seen = []
    with before_batch(monkeypatch, 2, lambda: seen.append(json.loads((tmp_path / "run" / "lock.json").read_text()))):
        loop.train(config_with(), tmp_path / "run")
    assert (seen[0]["pid"], seen[0]["host"]) == (os.getpid(), os.uname().nodename)
    assert not list(tmp_path.glob("run/lock*"))
    assert not list(whole.glob("lock*"))
    with before_batch(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        assert loop.train(config_with(seed=1), tmp_path / "stopped").stopped_by == "SIGTERM"
    assert not list(tmp_path.glob("stopped/lock*"))


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_second_run_raises_and_does_not_affect_the_first(whole, tmp_path, monkeypatch, overwrite):
    refused = []

    def second():
        with pytest.raises(HeldError) as error:
            loop.train(config_with(seed=239 + overwrite), tmp_path / "run", overwrite=overwrite)
        refused.append(str(error.value))

    with before_batch(monkeypatch, 3, second):
        loop.train(config_with(), tmp_path / "run")
    assert re.search(rf"run is in use by process {os.getpid()} on \S+, since \d{{4}}-\d\d-\d\d .* UTC", refused[0])
    assert "or use another --workdir" in refused[0]
    assert losses(tmp_path / "run") == losses(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    chex.assert_trees_all_equal(*(reader.read_encoder(folder).params for folder in (tmp_path / "run", whole)))


def test_lock_of_a_killed_run_is_taken_over(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    dead = dataclasses.replace(ownership.Owner.this_process(), started="1")
    (tmp_path / "run" / "lock.json").write_text(json.dumps(dataclasses.asdict(dead) | {"renewed": 0.0}))
    loop.train(config_with(), tmp_path / "run")
    assert losses(tmp_path / "run") == losses(whole)


def lost(tmp_path, monkeypatch, capsys, act, **changes):
    """The error of a run that calls `act` before its fourth step, with two steps saved."""
    with before_batch(monkeypatch, 4, act), pytest.raises(WorkdirLostError) as error:
        loop.train(config_with(steps=40, **changes), tmp_path / "run")
    output = capsys.readouterr()
    assert "command again" not in output.out
    assert "nothing to do" not in output.out
    return str(error.value)


@pytest.fixture
def wait_until_saved(monkeypatch):
    """wait_until_saved(step): waits until the run has recorded that this step is saved."""
    locks, acquire = [], run_lock.RunLock.acquire
    monkeypatch.setattr(run_lock.RunLock, "acquire", lambda lock: (locks.append(lock), acquire(lock))[1])

    def wait(step):
        wait_until(lambda: locks[-1].saved == step)

    return wait


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
def test_deleted_workdir_raises(tmp_path, monkeypatch, capsys, wait_until_saved, stopped):
    """Also if a signal stops the run at the same time."""

    def delete():
        wait_until_saved(2)
        shutil.rmtree(tmp_path / "run")
        if stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    message = lost(tmp_path, monkeypatch, capsys, delete)
    assert f"The working directory {tmp_path / 'run'} was deleted while training." in message
    assert "Its last checkpoint, step 2, no longer exists" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_replaced_workdir_raises_and_is_not_changed(whole, tmp_path, monkeypatch, capsys, wait_until_saved):
    def replace():
        wait_until_saved(2)
        (tmp_path / "run").rename(tmp_path / "aside")
        shutil.copytree(whole, tmp_path / "run")

    message = lost(tmp_path, monkeypatch, capsys, replace)
    assert "was replaced by another while training" in message
    assert {path.relative_to(tmp_path / "run"): text for path, text in content(tmp_path / "run").items()} == {
        path.relative_to(whole): text for path, text in content(whole).items()
    }


@pytest.mark.slow
def test_emptied_workdir_raises(tmp_path, monkeypatch, capsys, wait_until_saved):
    def empty():
        wait_until_saved(2)
        for path in (tmp_path / "run").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    message = lost(tmp_path, monkeypatch, capsys, empty)
    assert "has lost its config.json while training. Its last checkpoint, step 2, no longer exists" in message


@pytest.mark.parametrize("removed", [False, True])
def test_run_that_lost_its_lock_writes_nothing(tmp_path, monkeypatch, capsys, wait_until_saved, removed):
    """The machine was suspended for minutes, or somebody deleted the lock."""
    file, before = tmp_path / "run" / "lock.json", []

    def take_over():
        wait_until_saved(2)
        other = ownership.Owner("1", "node7", 4711, "another boot", "5", 0.0)
        file.write_text(json.dumps(dataclasses.asdict(other) | {"renewed": 0.0}))
        if removed:
            file.unlink()
        before.append(content(tmp_path / "run" / "checkpoints"))

    message = lost(tmp_path, monkeypatch, capsys, take_over, checkpoint={"every": 2, "keep": 1})
    assert ("lock.json was removed" if removed else "taken over by process 4711 on node7") in message
    assert "Its last checkpoint is step 2. Once no other run uses the folder, run the same command" in message
    assert content(tmp_path / "run" / "checkpoints") == before[0]
    assert file.exists() != removed


@pytest.mark.slow
def test_deleted_checkpoint_is_not_reported_as_saved(tmp_path, monkeypatch, capsys, wait_until_saved):
    require = run_lock.RunLock.require

    def lose(lock, saved=None):
        require(lock, saved)
        if saved == 6:  # the checkpoint existed when its save ended
            shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")

    monkeypatch.setattr(run_lock.RunLock, "require", lose)
    with pytest.raises(WorkdirLostError, match=r"checkpoint of step 6 in .*run was deleted"):
        loop.train(config_with(), tmp_path / "run")


def test_folder_with_other_files_gets_no_lock(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"no config\.json; it contains thesis\.tex"):
        loop.train(config_with(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_overwrite_through_a_link_keeps_the_link(tmp_path):
    """The link is relative, to a folder elsewhere."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "disk" / "run").mkdir()
    link = tmp_path / "runs" / "link"
    link.symlink_to("../disk/run")
    for seed in (1, 2):
        loop.train(config_with(steps=2, seed=seed), link, overwrite=True)
    assert os.readlink(link) == "../disk/run"
    assert [path.name for path in link.parent.iterdir()] == ["link"]
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["run", "run.old-1"]
    for name, seed in (("run", 2), ("run.old-1", 1)):
        assert workdir.load_config(tmp_path / "disk" / name).seed == seed
        assert reader.saved_steps(tmp_path / "disk" / name) == [2]


@pytest.mark.slow
def test_workdir_in_a_bucket_is_locked_and_its_deletion_raises(tmp_path, monkeypatch, wait_until_saved):
    with mock_store.mounted(tmp_path / "bucket", monkeypatch) as bucket:
        refused = []

        def second():
            with pytest.raises(HeldError, match="gs://bucket/run is in use by process"):
                loop.train(config_with(), "gs://bucket/run")
            refused.append(1)

        with before_batch(monkeypatch, 3, second):
            loop.train(config_with(), "gs://bucket/run")
        assert refused
        assert not (bucket / "run" / "lock.json").exists()

        def delete():
            wait_until_saved(2)
            shutil.rmtree(bucket / "two")

        with (
            before_batch(monkeypatch, 4, delete),
            pytest.raises(WorkdirLostError, match=r"gs://bucket/two was deleted .* step 2, no longer exists"),
        ):
            loop.train(config_with(), "gs://bucket/two")
        assert not (bucket / "two").exists()
