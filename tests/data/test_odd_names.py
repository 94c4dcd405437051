"""Unusual but valid Linux file names in files, lists, prepared sets, ledgers and evaluation."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jepa_jax import config, data
from jepa_jax.data import skipped_files, sources
from jepa_jax.data.preparation import build, frames, sets, verify
from jepa_jax.data.sources import array_record
from jepa_jax.settings import ConfigError

SourceConfig = config.SourceConfig
CLIP = config.ClipConfig(frames=2, size=16)
NAMES = (
    b"2024-01-26T20:57:00Z.mp4",
    b"-.mp4",
    b"pipe:0.mp4",
    b"concat:a|b.mp4",
    b"data:video.mp4",
    b"file:x.mp4",
    b"http:x.mp4",
    b"a#b?c&d.mp4",
    b"img%03d.mp4",
    b"a*b[c]{d}.mp4",
    b"two\nlines.mp4",
    b" lead.mp4",
    b"q\"'`.mp4",
    b"back\\slash.mp4",
    b"caf\xe9 \xff.mp4",
    "u\u2028\u0085x.mp4".encode(),
)
CLASSES = (b"caf\xe9", b" edges ", b"two\nlines", "u\u2028".encode(), b"plain")


@pytest.fixture(scope="module")
def odd(tmp_path_factory, write_video):
    """A folder of all odd classes, each with a video of every odd name; frame k is grey of level 8·k + 8."""
    folder = tmp_path_factory.mktemp("odd")
    video = write_video(folder.parent / "grey.mp4", frames=6)
    for name in CLASSES:
        (folder / os.fsdecode(name)).mkdir()
        for file in NAMES:
            shutil.copy(video, folder / os.fsdecode(name) / os.fsdecode(file))
    return folder


def first(count, fps):
    return np.arange(2)


@pytest.mark.parametrize("name", NAMES)
def test_video_with_any_name_is_read_from_a_relative_path(odd, monkeypatch, numbers, name):
    monkeypatch.chdir(odd / "plain")
    with open("list.csv", "wb") as file:
        file.write(b'"' + name.replace(b'"', b'""') + b'" 0\n')
    source = sources.open_source(SourceConfig(path="list.csv"), "mine")
    os.remove("list.csv")
    assert source.paths == (os.fsdecode(name),)
    assert numbers(source.read_clip(0, first)) == [0, 1]


@pytest.mark.slow
def test_training_reads_odd_names_and_logs_them(odd, tmp_path):
    folder = shutil.copytree(odd / "plain", tmp_path / "clips")
    bad = [os.fsdecode(b"bad \xff\n.mp4"), "gone.mp4"]
    (folder / bad[0]).write_bytes(b"nonsense")
    (folder / bad[1]).symlink_to("nowhere")
    settings = config.Config(
        steps=12,
        batch_size=4,
        clip=CLIP,
        data=config.DataConfig(sources={"odd": SourceConfig(path=str(folder))}, workers=1, max_skip_fraction=0.5),
    )
    ledger = skipped_files.SkipLedger(tmp_path / "skipped.jsonl", {"odd": 18}, 0.5)
    batches = data.TrainBatches(settings, ledger=ledger)
    try:
        drawn = {item for batch in batches for item in batch["item"].tolist()}
    finally:
        batches.close()
    listed = sorted(os.listdir(folder))
    assert {listed[item] for item in drawn} == {os.fsdecode(name) for name in NAMES}
    again = skipped_files.SkipLedger(tmp_path / "skipped.jsonl", {"odd": 18}, 0.5)
    assert again.skips == ledger.skips
    assert {os.path.relpath(skip.path, folder) for skip in again.skips} == set(bad)
    (tmp_path / "skipped.jsonl").read_bytes().decode("ascii")


def test_errors_list_one_name_per_line():
    ledger = skipped_files.SkipLedger(None, {"a": 2}, 0.1)
    with pytest.raises(data.TooManySkippedError) as caught:
        ledger.add([skipped_files.Skip("a", 0, "/x/a\nb \udcff.mp4", "broken")])
    assert str(caught.value).encode().decode().splitlines()[1:] == [r"  /x/a\nb \udcff.mp4: broken"]


@pytest.fixture(scope="module")
def made(odd, tmp_path_factory):
    """The prepared folder, whose source has a broken link and a pipe, and the summary."""
    folder = shutil.copytree(odd, tmp_path_factory.mktemp("raw") / os.fsdecode(b"raw \xff:"))
    (folder / "plain" / "gone \udcff\n.mp4").symlink_to("nowhere")
    os.mkfifo(folder / "plain" / "pipe.mp4")
    (folder / "plain" / "self").symlink_to("..")
    out = tmp_path_factory.mktemp("prepared") / "o:ut [%d]"
    return out, build.prepare(sets.OPEN["folder"](folder), out, frames.JpegSettings(32), 0)


def test_prepared_set_has_the_names_of_its_source(odd, made, numbers):
    out, summary = made
    verify.verify(out, 0)
    files, prep = (data.EvaluationSet(SourceConfig(path=str(path)), clip=CLIP) for path in (odd, out))
    assert len(prep.names) == len(NAMES) * len(CLASSES)
    assert prep.names == files.names
    assert prep.classes == files.classes == {"class": tuple(sorted(map(os.fsdecode, CLASSES)))}
    found = array_record.open_set(str(out), "train")
    assert numbers(found.read_clip(0, first)) == [0, 1]
    lines = summary.encode().decode().splitlines()  # valid text, with one line per file
    assert lines[-2].endswith(
        r"gone \udcff\n.mp4: a symbolic link to nowhere, which leads nowhere (No such file or directory)"
    )
    assert lines[-1].endswith("pipe.mp4: not a regular file but a pipe, socket or device")
    ledger = [json.loads(line) for line in (out / "skipped.jsonl").read_bytes().splitlines()]
    assert [os.path.basename(line["path"]) for line in ledger] == ["gone \udcff\n.mp4", "pipe.mp4"]


def test_tfds_reads_a_prepared_set_of_odd_names(made):
    out, _ = made
    builder = tfds.builder_from_directory(str(out))
    assert builder.info.features["label"].names == [r"\x20edges\x20", r"caf\udce9", "plain", r"two\nlines", r"u\u2028"]
    ids = {record["id"] for record in builder.as_data_source(split="train")}
    assert ids == {b"/".join((group, name)) for group in CLASSES for name in NAMES}


def test_non_utf8_folder_for_a_prepared_set_raises(odd, made, tmp_path):
    with pytest.raises(build.PrepareError, match="is not UTF-8"):
        build.prepare(sets.OPEN["folder"](odd), tmp_path / "o\udcff", frames.JpegSettings(32), 0)
    moved = shutil.copytree(made[0], tmp_path / "moved \udcff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        sources.open_source(SourceConfig(path=str(moved)), "mine")
