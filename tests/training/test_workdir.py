import dataclasses
import errno
import json
import os
import subprocess

import pytest

from jepa_jax.config import Config, SourceConfig
from jepa_jax.masks.block import BlockMask
from jepa_jax.run_dir import workdir
from jepa_jax.run_dir.workdir import cut_back, load_config, open_workdir, save_config, versions
from jepa_jax.settings import ConfigError


def config_with_everything():
    config = Config(steps=77, masks={"one": BlockMask(aspect=(0.5, 2.0))})
    data = dataclasses.replace(config.data, sources={"mine": SourceConfig(path="somewhere", weight=2.0)})
    return dataclasses.replace(config, data=data)


def test_config_survives_save_and_load(tmp_path):
    save_config(tmp_path, config_with_everything())
    assert load_config(tmp_path) == config_with_everything()


def test_new_workdir_is_created_and_can_be_reopened(tmp_path):
    path = open_workdir(tmp_path / "a" / "run", Config())
    assert sorted(entry.name for entry in path.iterdir()) == ["config.json", "versions.json"]
    assert load_config(path) == Config()
    (path / "metrics.jsonl").write_text("kept")
    assert open_workdir(path, Config()) == path
    assert (path / "metrics.jsonl").read_text() == "kept"


def test_empty_or_partially_created_workdir_counts_as_new(tmp_path):
    (tmp_path / "versions.json").write_text("{}")
    (tmp_path / "versions.json.tmp").write_text("{")
    (tmp_path / "config.json.tmp").write_text('{"ste')
    open_workdir(tmp_path, Config())
    assert load_config(tmp_path) == Config()
    assert json.loads((tmp_path / "versions.json").read_text())["jax"]


def test_changed_config_raises_with_the_difference(tmp_path):
    open_workdir(tmp_path, Config(seed=10))
    with pytest.raises(ConfigError, match=r"(?s)config\.seed: 10 → 20\n.*another --workdir.*, or --resume=overwrite"):
        open_workdir(tmp_path, Config(seed=20))
    assert load_config(tmp_path).seed == 10


def test_more_steps_raise_with_advice_to_extend(tmp_path):
    open_workdir(tmp_path, Config(steps=10))
    with pytest.raises(ConfigError, match=r"(?s)config\.steps: 10 → 20\n.*--resume=extend") as raised:
        open_workdir(tmp_path, Config(steps=20))
    assert "overwrite" not in str(raised.value)
    assert open_workdir(tmp_path, Config(steps=20), extend=True) == tmp_path
    assert load_config(tmp_path).steps == 10  # unchanged until training begins


def test_error_names_the_changes_that_extend_would_allow(tmp_path):
    open_workdir(tmp_path, Config(steps=10, seed=1))
    for extend in (False, True):
        with pytest.raises(ConfigError, match=r"(?s)config\.seed: 1 → 2\n.*--resume=overwrite"):
            open_workdir(tmp_path, Config(steps=20, seed=2), extend=extend)
    with pytest.raises(ConfigError, match=r"In that run only config\.steps can change, with --resume=extend") as raised:
        open_workdir(tmp_path, Config(steps=20, seed=2))
    assert "config.steps: 10 → 20" in str(raised.value)


def test_overwrite_moves_the_old_run_aside(tmp_path):
    path = tmp_path / "run"
    for steps in (1, 2, 3):
        open_workdir(path, Config(steps=steps), overwrite=True)
    assert [load_config(tmp_path / name).steps for name in ("run", "run.old-1", "run.old-2")] == [3, 1, 2]


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_with_other_files_raises_and_is_not_changed(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"no config\.json; it contains thesis\.tex"):
        open_workdir(tmp_path, Config(), overwrite=overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_as_workdir_raises(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(ConfigError, match="is a file"):
        open_workdir(tmp_path / "run", Config())


@pytest.mark.parametrize("content", ["", '{"steps": ', "[1]", '{"stepz": 3}', '{"steps": "many"}'])
def test_unreadable_config_raises_with_the_file_name(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json is not a configuration"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)config\.json is not a configuration.*--resume=overwrite"):
        open_workdir(tmp_path, Config())
    open_workdir(tmp_path, Config(), overwrite=True)


def test_versions_include_all_dependencies():
    assert {
        "python",
        "jax",
        "flax",
        "optax",
        "orbax-checkpoint",
        "grain",
        "jepa_jax",
        "sprites",
        "commit",
    } <= versions().keys()


def test_commit_is_that_of_the_checkout_of_the_package(tmp_path, monkeypatch):
    module = tmp_path / "workdir.py"
    module.touch()
    monkeypatch.setattr(workdir, "__file__", str(module))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    assert versions()["commit"] is None
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert versions()["commit"] is None  # in a checkout, but not tracked
    subprocess.run([*git, "add", "workdir.py"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert versions()["commit"] == head
    module.write_text("changed")
    assert versions()["commit"] == f"{head}-dirty"


def test_cut_back_removes_metrics_after_the_restored_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 0.5}) + "\n" for step in (1, 2, 3, 4)]
    path.write_text("".join(lines) + '{"step": 5, "lo')
    cut_back(path, 3)
    assert path.read_text() == "".join(lines[:3])
    cut_back(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize("end", ['{"ste', "{", "7", '{"step": 2, "loss": 0.', '{"loss": 1}'])
def test_cut_back_drops_an_incomplete_last_line(tmp_path, end, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + end)
    cut_back(path, 9)
    assert path.read_text() == '{"step": 1}\n'
    assert end in caplog.text


def test_cut_back_without_metrics_does_nothing(tmp_path):
    cut_back(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_overwrite_moves_the_contents_of_a_linked_folder(tmp_path):
    """The link and the folder it points to, which may be a mounted disk, stay in place."""
    target, link = tmp_path / "disk" / "run", tmp_path / "run"
    target.mkdir(parents=True)
    link.symlink_to(target)
    inode = target.stat().st_ino
    open_workdir(link, Config(steps=1))
    (link / "kept~").write_text("an editor's copy")
    open_workdir(link, Config(steps=2), overwrite=True)
    assert link.is_symlink()
    assert target.stat().st_ino == inode
    assert [load_config(path).steps for path in (link, target, tmp_path / "disk" / "run.old-1")] == [2, 2, 1]
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "versions.json"]
    assert (tmp_path / "disk" / "run.old-1" / "kept~").exists()
    assert not list(tmp_path.glob("*.old-*"))


def test_broken_link_raises(tmp_path):
    (tmp_path / "run").symlink_to("unmounted/run")
    with pytest.raises(ConfigError, match="is a symbolic link to unmounted/run, which does not exist"):
        open_workdir(tmp_path / "run", Config())


def test_run_that_cannot_be_moved_is_kept(tmp_path, monkeypatch):
    """The root of a mounted disk cannot be renamed to a path beside it, which is on another disk."""
    open_workdir(tmp_path / "run", Config(steps=1))

    def other_disk(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(workdir.os, "rename", other_disk)
    with pytest.raises(ConfigError, match=r"Cannot move the run in .* to .*run\.old-1: Invalid cross-device link"):
        open_workdir(tmp_path / "run", Config(steps=2), overwrite=True)
    assert load_config(tmp_path / "run").steps == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
