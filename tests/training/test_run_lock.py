"""A run and its folder: one run at a time, and none that goes on in a folder it has lost."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import time

import chex
import mock_store
import pytest
import tiny_run

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
def test_a_run_holds_its_folder_until_it_ends(whole, tmp_path, monkeypatch):
    """By itself, or by a signal."""
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
def test_a_second_run_is_refused_and_the_first_is_as_if_alone(whole, tmp_path, monkeypatch, overwrite):
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


def test_a_killed_run_is_taken_over_at_once(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    dead = dataclasses.replace(ownership.Owner.this_process(), started="1")
    (tmp_path / "run" / "lock.json").write_text(json.dumps(dataclasses.asdict(dead) | {"renewed": 0.0}))
    loop.train(config_with(), tmp_path / "run")
    assert losses(tmp_path / "run") == losses(whole)


def lost(tmp_path, monkeypatch, capsys, act, **changes):
    """What a run says whose folder has something done to it before its fourth step, with two steps saved."""
    with before_batch(monkeypatch, 4, act), pytest.raises(WorkdirLostError) as error:
        loop.train(config_with(steps=40, **changes), tmp_path / "run")
    told = capsys.readouterr()
    assert "command again" not in told.out
    assert "nothing to do" not in told.out
    return str(error.value)


@pytest.fixture
def wait_until_saved(monkeypatch):
    """wait_until_saved(step): until the run knows that this step is saved."""
    locks, acquire = [], run_lock.RunLock.acquire
    monkeypatch.setattr(run_lock.RunLock, "acquire", lambda lock: (locks.append(lock), acquire(lock))[1])

    def wait(step):
        while locks[-1].saved != step:
            time.sleep(0.01)

    return wait


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
def test_a_deleted_folder_is_told(tmp_path, monkeypatch, capsys, wait_until_saved, stopped):
    """Also where a signal asks to save and stop just then."""

    def delete():
        wait_until_saved(2)
        shutil.rmtree(tmp_path / "run")
        if stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    message = lost(tmp_path, monkeypatch, capsys, delete)
    assert f"The working directory {tmp_path / 'run'} was deleted while training." in message
    assert "Its last checkpoint, step 2, no longer exists" in message
    assert not (tmp_path / "run").exists()


def test_a_folder_in_place_of_another_is_left_alone(whole, tmp_path, monkeypatch, capsys, wait_until_saved):
    def replace():
        wait_until_saved(2)
        (tmp_path / "run").rename(tmp_path / "aside")
        shutil.copytree(whole, tmp_path / "run")

    message = lost(tmp_path, monkeypatch, capsys, replace)
    assert "was replaced by another while training" in message
    assert {path.relative_to(tmp_path / "run"): text for path, text in content(tmp_path / "run").items()} == {
        path.relative_to(whole): text for path, text in content(whole).items()
    }


def test_an_emptied_folder_is_told(tmp_path, monkeypatch, capsys, wait_until_saved):
    def empty():
        wait_until_saved(2)
        for path in (tmp_path / "run").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    message = lost(tmp_path, monkeypatch, capsys, empty)
    assert "has lost its config.json while training. Its last checkpoint, step 2, no longer exists" in message


@pytest.mark.parametrize("removed", [False, True])
def test_a_run_that_another_took_over_writes_nothing_more(tmp_path, monkeypatch, capsys, wait_until_saved, removed):
    """As after a machine that was suspended for minutes; or somebody deleted the lock."""
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


def test_a_deleted_checkpoint_is_not_said_to_be_saved(tmp_path, monkeypatch, capsys, wait_until_saved):
    require = run_lock.RunLock.require

    def lose(lock, saved=None):
        require(lock, saved)
        if saved == 6:  # it was there when its save ended
            shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")

    monkeypatch.setattr(run_lock.RunLock, "require", lose)
    with pytest.raises(WorkdirLostError, match=r"checkpoint of step 6 in .*run was deleted"):
        loop.train(config_with(), tmp_path / "run")


def test_a_folder_of_something_else_gets_no_lock(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"no config\.json; it contains thesis\.tex"):
        loop.train(config_with(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_overwriting_through_a_link_keeps_the_link(tmp_path):
    """A relative one, to a folder elsewhere."""
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
def test_in_a_bucket_too(tmp_path, monkeypatch, wait_until_saved):
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
