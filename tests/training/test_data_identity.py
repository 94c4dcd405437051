"""The data of a run are identified by content: they may move, but changes are detected."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tiny_run

from jepa_jax.config import Config, SourceConfig
from jepa_jax.data import sources, sprites
from jepa_jax.data.preparation import build, frames, sets
from jepa_jax.data.sources import fingerprints
from jepa_jax.run_dir import data_identity, workdir
from jepa_jax.settings import ConfigError, parse

NAMES = ("jump/a.mp4", "jump/b.mp4", "run/c.mp4", "run/d.mp4")


def make(folder, names=NAMES):
    """Writes files of random bytes. Opening a source does not decode them."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(np.random.default_rng(i).bytes(20_000 + i))
    return folder


def moved(folder, to):
    """Copies a folder and changes the modification times."""
    shutil.copytree(folder, to)
    for path in to.rglob("*"):
        os.utime(path, (1, 1))
    return to


def config(path, **settings):
    source = {"kind": "videos", "path": str(path), **settings}
    return parse(Config, tiny_run.SETTINGS | {"data": {"sources": {"mine": source}, "workers": 0}})


def resume(run, config, extend=False):
    """Opens a run and checks its data as training does before its first step."""
    identities = data_identity.identify_all(sources.open_sources(config.data))
    folder = workdir.open_workdir(run, config)
    lines = data_identity.require_same(folder, config, identities, extend=extend)
    data_identity.record(folder, identities, changed=bool(lines))
    return lines


def identity(path, **settings):
    return sources.open_source(SourceConfig(path=str(path), **settings), "mine").fingerprint()


def test_moved_folder_is_accepted_and_reported(tmp_path, capsys):
    old = make(tmp_path / "old")
    resume(tmp_path / "run", config(old))
    new = moved(old, tmp_path / "node" / "new")
    shutil.rmtree(old)
    assert resume(tmp_path / "run", config(new)) == []
    assert f"moved from {old} to {new}: the same 4 items by content" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "diff"),
    [
        (lambda folder: (folder / NAMES[0]).unlink(), r"1 removed \('jump/a\.mp4'\)"),
        (lambda folder: make(folder, ["run/e.mp4", "run/f.mp4"]), r"2 added \('run/e\.mp4', 'run/f\.mp4'\)"),
        (lambda folder: (folder / NAMES[2]).write_bytes(b"shorter"), r"1 changed \('run/c\.mp4'\)"),
        (lambda folder: (folder / NAMES[2]).write_bytes(b"x" * 20_002), r"1 changed \('run/c\.mp4'\)"),
        (lambda folder: (folder / NAMES[3]).rename(folder / "run/z.mp4"), r"1 removed \('run/d\.mp4'\), 1 added"),
    ],
    ids=["removed", "added", "another size", "same size", "renamed"],
)
@pytest.mark.parametrize("location", ["same", "another"])
def test_changed_data_raise_with_the_differences(tmp_path, change, diff, location):
    old = make(tmp_path / "old")
    resume(tmp_path / "run", config(old))
    recorded = (tmp_path / "run" / "data.json").read_bytes()
    new = old if location == "same" else moved(old, tmp_path / "new")
    change(new)
    with pytest.raises(ConfigError, match=rf"config\.data\.sources\.mine: .*{new} does not contain the data.*{diff}"):
        resume(tmp_path / "run", config(new))
    assert (tmp_path / "run" / "data.json").read_bytes() == recorded

    (line,) = resume(tmp_path / "run", config(new), extend=True)
    assert "does not contain the data" in line
    assert resume(tmp_path / "run", config(new)) == []


def test_include_and_exclude_may_change_if_they_select_the_same_files(tmp_path):
    folder = make(tmp_path / "data")
    resume(tmp_path / "run", config(folder, include="jump"))
    assert resume(tmp_path / "run", config(folder, exclude="run/")) == []
    with pytest.raises(ConfigError, match=r"2 added"):
        resume(tmp_path / "run", config(folder))


def test_error_names_examples_of_many_files(tmp_path):
    folder = make(tmp_path / "data", [f"{i:03}.mp4" for i in range(20)])
    resume(tmp_path / "run", config(folder))
    shutil.rmtree(folder)
    make(folder, ["other.mp4"])
    with pytest.raises(ConfigError, match=r"20 removed \('000\.mp4', '001\.mp4', '002\.mp4', …\), 1 added"):
        resume(tmp_path / "run", config(folder))


def listed(csv, paths):
    csv.parent.mkdir(parents=True, exist_ok=True)
    csv.write_text("".join(f"{path} 0\n" for path in paths))
    return csv


def test_list_with_relative_or_absolute_paths_moves_with_its_files(tmp_path):
    old = make(tmp_path / "old")
    new = moved(old, tmp_path / "deeper" / "new")
    for relative in (True, False):
        lists = [
            listed(tmp_path / f"{relative}{folder.name}" / "list.csv", [folder / name for name in NAMES])
            if not relative
            else listed(folder / "list.csv", NAMES)
            for folder in (old, new)
        ]
        assert identity(lists[0]) == identity(lists[1])
    assert identity(lists[0]).names == NAMES


def test_order_of_a_list_is_compared(tmp_path):
    folder = make(tmp_path)
    first, second = listed(folder / "a.csv", NAMES), listed(folder / "b.csv", NAMES[::-1])
    assert data_identity.differences(identity(first), identity(second)) == ["the same items in another order or number"]


def test_identity_does_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    folder = make(tmp_path / "data")
    expected = identity(folder)
    monkeypatch.chdir(folder)
    assert identity(".") == expected
    monkeypatch.chdir(tmp_path)
    assert identity("data") == identity("./data/") == expected


def test_only_a_sample_of_many_files_is_read(tmp_path, monkeypatch):
    folder = make(tmp_path, [f"{i:02}.mp4" for i in range(40)])
    monkeypatch.setattr(fingerprints, "SIZES", 10)
    monkeypatch.setattr(fingerprints, "EXCERPTS", 3)
    found = identity(folder)
    assert (len(found.names), len(found.sizes), len(found.content)) == (40, 10, 3)
    assert list(found.content) == ["00.mp4", "20.mp4", "39.mp4"]


def test_prepared_dataset_may_move_but_not_change(tmp_path, write_video):
    for i in range(3):
        write_video(tmp_path / "raw" / "class" / f"{i}.mp4", frames=8 + i)
    folders = [tmp_path / "set", tmp_path / "smaller"]
    for folder, quality in zip(folders, (95, 60), strict=True):
        build.prepare(sets.OPEN["folder"](tmp_path / "raw"), folder, frames.JpegSettings(quality=quality), 0)
    resume(tmp_path / "run", config(folders[0]))
    assert resume(tmp_path / "run", config(moved(folders[0], tmp_path / "elsewhere"))) == []
    with pytest.raises(ConfigError, match=r"1 changed \('.*array_record"):
        resume(tmp_path / "run", config(folders[1]))
    with pytest.raises(ConfigError, match="removed"):
        resume(tmp_path / "run", config(make(tmp_path / "files")))


def test_another_sprites_version_counts_as_changed_data(tmp_path, monkeypatch):
    settings = parse(Config, tiny_run.SETTINGS)
    resume(tmp_path, settings)
    assert resume(tmp_path, settings) == []
    monkeypatch.setattr(sprites, "VERSION", "another")
    with pytest.raises(ConfigError, match=r"1 changed \('sprites'\)"):
        resume(tmp_path, settings)


def run_without_record(run, config):
    """Creates a run like versions that recorded no data and had no `schedule_steps`."""
    resume(run, config)
    (run / "data.json").unlink()
    settings = json.loads((run / "config.json").read_text())
    del settings["schedule_steps"]
    (run / "config.json").write_text(json.dumps(settings))


def test_old_run_resumes_on_its_path_and_records_the_data(tmp_path):
    folder = make(tmp_path / "data")
    run_without_record(tmp_path / "run", config(folder))
    assert resume(tmp_path / "run", config(folder)) == []
    (folder / NAMES[0]).unlink()
    with pytest.raises(ConfigError, match="1 removed"):
        resume(tmp_path / "run", config(folder))


def test_old_run_on_another_path_is_compared_with_the_old_path_if_it_exists(tmp_path):
    folder = make(tmp_path / "data")
    run_without_record(tmp_path / "run", config(folder))
    with pytest.raises(ConfigError, match="2 removed"):
        resume(tmp_path / "run", config(make(tmp_path / "half", NAMES[:2])))
    assert resume(tmp_path / "run", config(moved(folder, tmp_path / "copy"))) == []


def test_old_run_whose_path_no_longer_exists_resumes_with_a_warning(tmp_path, caplog):
    folder = make(tmp_path / "data")
    run_without_record(tmp_path / "run", config(folder))
    folder.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"(?s)include: '' → 'jump'.*cannot be checked.*does not exist"):
        resume(tmp_path / "run", config(tmp_path / "moved", include="jump"))
    assert not (tmp_path / "run" / "data.json").exists()
    assert resume(tmp_path / "run", config(tmp_path / "moved")) == []
    assert "whether the data are the same cannot be checked" in caplog.text


@pytest.mark.parametrize("content", ["", "[]", "{", '{"mine": {}}', '{"mine": 3}'])
def test_unreadable_record_raises_with_advice(tmp_path, content):
    folder = make(tmp_path / "data")
    resume(tmp_path / "run", config(folder))
    record: pathlib.Path = tmp_path / "run" / "data.json"
    record.write_text(content)
    with pytest.raises(ConfigError, match=r"data\.json is not a record of the run's data.*Delete it"):
        resume(tmp_path / "run", config(folder))
    record.unlink()
    assert resume(tmp_path / "run", config(folder)) == []


def test_source_with_weight_0_is_not_compared(tmp_path):
    used = config(make(tmp_path / "data"))
    left_out = dataclasses.replace(used.data.sources["mine"], path="nowhere", weight=0.0)
    both = dataclasses.replace(used.data, sources={**used.data.sources, "more": left_out})
    resume(tmp_path / "run", dataclasses.replace(used, data=both))
    assert list(json.loads((tmp_path / "run" / "data.json").read_text())) == ["mine"]
    assert resume(tmp_path / "run", dataclasses.replace(used, data=both)) == []
