"""Preparing again: added, repaired, changed and removed files are detected, and only their shards are rewritten."""

import json
import os
import shutil

import interrupted
import numpy as np
import pytest
from PIL import Image

from jepa_jax import config, data
from jepa_jax.data.preparation import build, sets, shard_writer, verify
from jepa_jax.data.preparation.frames import JpegSettings
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.sources import array_record

SETTINGS = JpegSettings(short_side=16)


def picture(file, number):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)


@pytest.fixture
def raw(tmp_path):
    """A folder of 150 images in two classes: three shards of up to 64."""
    for number in range(150):
        picture(tmp_path / "raw" / "ab"[number >= 75] / f"{number:03}.png", number)
    return tmp_path / "raw"


@pytest.fixture
def prepare(raw, tmp_path, monkeypatch):
    """prepare(out="out", **options) returns the summary and the numbers of the written shards."""
    write = shard_writer.write

    def run(out="out", **options):
        written = []
        monkeypatch.setattr(
            shard_writer, "write", lambda shard, *a, **k: (written.append(shard.number), write(shard, *a, **k))
        )
        summary = build.prepare(sets.OPEN["folder"](raw), tmp_path / out, SETTINGS, 0, **options)
        monkeypatch.setattr(shard_writer, "write", write)
        return summary, written

    return run


def digest(folder):
    array_record.records.cache_clear()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def assert_as_new(prepare, tmp_path):
    """Asserts that preparing in a new folder gives the same bytes."""
    prepare("new")
    assert digest(tmp_path / "out") == digest(tmp_path / "new")
    assert "no problems found" in verify.verify(tmp_path / "out", 0)
    assert sorted(path.name for path in (tmp_path / "out" / "notes").iterdir()) == sorted(
        path.name for path in (tmp_path / "new" / "notes").iterdir()
    )


def test_repaired_file_is_added(raw, prepare, tmp_path, capsys):
    whole = (raw / "b" / "140.png").read_bytes()
    (raw / "b" / "140.png").write_bytes(whole[:50])
    assert "1 could not be prepared" in prepare()[0]
    (raw / "b" / "140.png").write_bytes(whole)
    summary, written = prepare()
    assert written == [2]
    assert "complete already" not in summary
    assert "could not be prepared" not in summary
    assert "1 repaired: b/140.png" in capsys.readouterr().out
    assert_as_new(prepare, tmp_path)
    assert "is already complete" in prepare()[0]


def test_new_files_and_classes_are_added(raw, prepare, tmp_path):
    prepare()
    picture(raw / "b" / "150.png", 150)
    assert prepare()[1] == [2]
    assert_as_new(prepare, tmp_path)
    for number in range(50):  # one more shard; file names contain the number of shards
        picture(raw / "b" / f"{200 + number}.png", number)
    shutil.rmtree(tmp_path / "new")
    assert prepare()[1] == [2, 3]
    assert_as_new(prepare, tmp_path)
    picture(raw / "aa" / "0.png", 0)  # class b gets another label
    shutil.rmtree(tmp_path / "new")
    assert prepare()[1] == [1, 2, 3]
    assert_as_new(prepare, tmp_path)
    assert array_record.open_set(str(tmp_path / "out"), "train").classes == ("a", "aa", "b")


def test_changed_and_removed_files_require_the_update_flag(raw, prepare, tmp_path):
    prepare()
    before = digest(tmp_path / "out")
    picture(raw / "a" / "003.png", 1003)
    (raw / "b" / "149.png").unlink()
    with pytest.raises(PrepareError) as caught:
        prepare()
    for part in ("1 changed: a/003.png", "1 removed: b/149.png", "--update to rewrite 2 of 3 shards"):
        assert part in str(caught.value)
    assert digest(tmp_path / "out") == before
    assert prepare(update=True)[1] == [0, 2]
    assert_as_new(prepare, tmp_path)


def test_file_with_a_new_modification_time_counts_as_changed(raw, prepare):
    prepare()
    file = raw / "a" / "000.png"
    state = file.stat()
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(PrepareError, match=r"1 changed: a/000\.png"):
        prepare()


def test_listed_file_that_appears_later_is_added(raw_something_something_v2, tmp_path):
    videos, out = raw_something_something_v2 / "20bn-something-something-v2", tmp_path / "out"
    videos.joinpath("12.webm").rename(tmp_path / "12.webm")

    def prepare():
        return build.prepare(sets.OPEN["something_something_v2"](raw_something_something_v2), out, SETTINGS, 0)

    assert "12.webm: listed, but the file is not there" in prepare()
    shutil.move(tmp_path / "12.webm", videos)
    assert "could not be prepared" not in prepare()
    assert list(array_record.open_set(str(out), "train").index.ids) == ["10", "11", "12", "13", "14"]
    assert (out / "skipped.jsonl").read_text() == ""


def test_killed_update_resumes(raw, prepare, tmp_path, monkeypatch):
    prepare()
    for number in (10, 80, 140):
        picture(raw / "ab"[number >= 75] / f"{number:03}.png", 2000 + number)
    replace = os.replace

    def killed(source, target):
        if "train.array_record-00001" in str(target):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(shard_writer.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(update=True)
    monkeypatch.undo()
    with pytest.raises(array_record.NotPreparedError, match="not completely prepared"):
        array_record.open_set(str(tmp_path / "out"), "train")
    assert prepare(update=True)[1] == [1, 2]
    assert_as_new(prepare, tmp_path)


def test_set_opened_before_an_update_never_returns_other_items(raw, prepare, tmp_path):
    prepare()
    opened = data.EvaluationSet(
        config.SourceConfig(kind="images", path=str(tmp_path / "out")),
        clip=config.ClipConfig(frames=2, size=16),
        max_skip_fraction=0.99,
    )
    picture(raw / "a" / "0000.png", 1)
    prepare()
    array_record.records.cache_clear()
    with pytest.raises(data.TooManySkippedError, match="the set has been prepared again since it was opened"):
        list(opened.batches(50))


def older(out):
    """Makes the set look like one of an earlier version, which recorded neither sizes nor times."""
    shutil.rmtree(out / "notes")


def test_set_of_an_earlier_version_opens_and_detects_modified_files(raw, prepare, tmp_path):
    (raw / "b" / "140.png").write_bytes(b"nonsense")
    prepare()
    older(tmp_path / "out")
    assert len(array_record.open_set(str(tmp_path / "out"), "train").index.ids) == 149
    assert "is already complete (prepared by an earlier version" in prepare()[0]
    picture(raw / "b" / "140.png", 140)
    os.utime(raw / "b" / "140.png", (finished := (tmp_path / "out" / "prepared.json").stat().st_mtime + 5, finished))
    with pytest.raises(PrepareError, match=r"1 modified since: b/140\.png.* earlier version.*--update"):
        prepare()
    assert prepare(update=True)[1] == [0, 1, 2]
    assert_as_new(prepare, tmp_path)


def test_set_of_an_earlier_version_with_other_files_raises(raw, prepare, tmp_path):
    prepare()
    older(tmp_path / "out")
    (raw / "b" / "149.png").unlink()
    with pytest.raises(PrepareError, match=r"items: {'train': 150} before, {'train': 149} now.*--update"):
        prepare()


def test_notes_of_an_earlier_version_are_rewritten(raw, prepare, tmp_path, monkeypatch):
    with interrupted.before_description(monkeypatch):
        prepare()
    for file in (tmp_path / "out" / "preparing").glob("train-*.json"):
        note = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in note.items() if key not in ("file", "stamps")}))
    assert prepare()[1] == [0, 1, 2]
    assert_as_new(prepare, tmp_path)


def test_command_line_requires_the_update_flag(raw, tmp_path, capsys, monkeypatch):
    from absl import flags
    from absl.testing import flagsaver

    from jepa_jax import prepare as command

    def run(**options):
        with flagsaver.flagsaver(source=str(raw), out=str(tmp_path / "out"), workers=0, short_side=16, **options):
            return command.main(["prepare", "folder"])

    assert flags.FLAGS["update"].default is False
    assert run() == 0
    (raw / "a" / "000.png").unlink()
    assert run() == 1
    assert "--update" in capsys.readouterr().err
    assert run(update=True) == 0
    assert "folder: 149 images" in capsys.readouterr().out
    assert not (tmp_path / "out" / "preparing").exists()
