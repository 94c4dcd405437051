"""Tar shards of clips: items, labels, random access and damage."""

import dataclasses
import gzip
import io
import json
import pathlib
import pickle
import shutil
import tarfile

import numpy as np
import pytest

from jepa_jax import config, data
from jepa_jax.data import faults, sources
from jepa_jax.data.decode import videos
from jepa_jax.data.sources import interface, webdataset
from jepa_jax.settings import ConfigError, parse


def write_tar(path, members, mode="w"):
    """Writes a tar file; `members` maps names to bytes."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def encoded(clips):
    """The bytes of an MP4 video of 24 frames and an AVI video of 4."""
    return (clips / "a" / "0.mp4").read_bytes(), (clips / "b" / "0 with space.avi").read_bytes()


@pytest.fixture
def shards(tmp_path, encoded):
    """Two shards of three and two samples, with labels in .cls, .txt and .json members."""
    mp4, avi = encoded
    write_tar(
        tmp_path / "shard-000.tar",
        {"a/1.mp4": mp4, "a/1.cls": b"3\n", "a/2.avi": avi, "a/2.txt": b" walk ", "a/3.json": b'{"label": "run"}'}
        | {"a/3.mp4": mp4, "a/._1.mp4": b"", "README": b"no sample"},
    )
    write_tar(tmp_path / "shard-001.tar", {"4.cam1.mp4": mp4, "4.json": b'{"label": 3}', "5.mp4": mp4})
    return tmp_path


def opened(path, **settings):
    return sources.open_source(config.SourceConfig(kind="webdataset", path=str(path), **settings), "mine")


def first_and_last(count, fps):
    del fps
    return np.array([0, count - 1])


def test_items_are_videos_with_the_labels_of_their_samples(shards):
    source = opened(shards)
    assert [path.removeprefix(f"{shards}/") for path in source.paths] == [
        "shard-000.tar/a/1.mp4",
        "shard-000.tar/a/2.avi",
        "shard-000.tar/a/3.mp4",
        "shard-001.tar/4.cam1.mp4",
        "shard-001.tar/5.mp4",
    ]
    assert source.classes == ("3", "run", "walk")
    assert source.labels.tolist() == [0, 2, 1, 0, sources.UNLABELLED]
    assert sources.describe([source]) == "mine (5 videos, weight 1)"


def test_clips_are_read_in_place_and_match_those_of_files(shards, clips, numbers):
    source = pickle.loads(pickle.dumps(opened(shards)))
    for item, file in ((3, "a/0.mp4"), (1, "b/0 with space.avi"), (0, "a/0.mp4")):
        clip = source.read_clip(item, first_and_last)
        np.testing.assert_array_equal(clip, videos.read_clip(str(clips / file), first_and_last))
    assert numbers(source.read_clip(0, lambda count, fps: np.array([5, 17]))) == [5, 17]
    assert sorted(path.name for path in shards.iterdir()) == ["shard-000.tar", "shard-001.tar"]


@pytest.mark.parametrize("pattern", ["shard-{000..001}.tar", "shard-*.tar", "shard-00{0,1}.tar", "shard-{1..0}.tar"])
def test_patterns_expand_to_shards_in_order(shards, pattern):
    if pattern == "shard-{1..0}.tar":
        for number in (0, 1):
            shutil.copy(shards / f"shard-00{number}.tar", shards / f"shard-{number}.tar")
        assert opened(shards / pattern).paths[0].endswith("shard-1.tar/4.cam1.mp4")
        return
    assert list(opened(shards / pattern).paths) == list(opened(shards).paths)
    assert opened(shards / "shard-001.tar").size == 2


def test_include_selects_members_and_their_classes(shards):
    source = opened(shards, include=r"shard-000.*mp4")
    assert [path[-5:] for path in source.paths] == ["1.mp4", "3.mp4"]
    assert source.classes == ("3", "run")
    assert source.read_clip(1, first_and_last).shape == (2, 48, 64, 3)


def test_missing_shards_or_videos_raise(shards):
    with pytest.raises(ConfigError, match=r"mine.path .*2 of 4 tar files do not exist: .*shard-002.*shard-003"):
        opened(shards / "shard-{000..003}.tar")
    with pytest.raises(ConfigError, match=r"matches no .tar file"):
        opened(shards / "other-*.tar")
    with pytest.raises(ConfigError, match=r"mine.path is empty; expected a .tar file"):
        opened("")
    write_tar(shards / "pictures.tar", {"a.jpg": b"x"})
    with pytest.raises(ConfigError, match=r"no videos in 1 tar files .*expected members such as SAMPLE.mp4"):
        opened(shards / "pictures.tar")


@pytest.mark.parametrize("name", ["shard.tar.gz", "shard.tar", "shard.tgz"])
def test_compressed_tar_raises(shards, name):
    (shards / name).write_bytes(gzip.compress((shards / "shard-000.tar").read_bytes()))
    for path in (shards / name, shards):
        with pytest.raises(ConfigError, match=rf"{name} is compressed \(gzip\).*Decompress it"):
            opened(path)


def settings_of(path, workers=0):
    return config.Config(
        steps=8,
        batch_size=3,
        clip=config.ClipConfig(frames=2, size=16),
        data=config.DataConfig(
            sources={"tars": config.SourceConfig(kind="webdataset", path=str(path))},
            workers=workers,
            max_skip_fraction=0.5,
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_members_are_skipped_and_logged(shards, encoded, tmp_path, workers):
    write_tar(shards / "shard-002.tar", {"bad.mp4": b"no video" * 100, "empty.mp4": b"", "good.mp4": encoded[0]})
    settings = settings_of(shards, workers)
    found = data.open_sources(settings.data)
    batches = data.TrainBatches(
        settings, opened=found, ledger=data.new_ledger(settings.data, found, tmp_path / "skips")
    )
    try:
        items = {item for batch in batches for item in batch["item"].tolist()}
    finally:
        batches.close()
    assert items == {0, 1, 2, 3, 4, 7}
    skips = {(line := json.loads(text))["item"]: line for text in (tmp_path / "skips").read_text().splitlines()}
    assert {item: skip["path"] for item, skip in skips.items()} == {
        5: f"{shards}/shard-002.tar/bad.mp4",
        6: f"{shards}/shard-002.tar/empty.mp4",
    }
    assert skips[6]["reason"] == "the member is empty"


def test_truncated_or_invalid_tar_is_one_undecodable_item(shards):
    whole = (shards / "shard-000.tar").read_bytes()
    with tarfile.open(shards / "shard-000.tar") as tar:
        member = tar.getmember("a/3.mp4")
    (shards / "shard-000.tar").write_bytes(whole[: member.offset_data + member.size // 2])
    (shards / "shard-002.tar").write_bytes(b"no tar" * 1000)
    source = opened(shards)
    reasons = {}
    for item in range(source.size):
        try:
            source.read_clip(item, first_and_last)
        except faults.DecodeError as error:
            reasons[error.path.removeprefix(f"{shards}/")] = error.reason
    assert reasons.keys() == {"shard-000.tar/a/3.mp4", "shard-000.tar", "shard-002.tar"}
    assert "ends within it" in reasons["shard-000.tar/a/3.mp4"]
    assert reasons["shard-000.tar"].startswith("damaged after its member 'a/3.mp4'")
    assert reasons["shard-002.tar"].startswith("not a readable tar file")


def test_tar_that_changes_after_opening_raises(shards, encoded):
    source = opened(shards)
    write_tar(shards / "shard-000.tar", {"a/0.mp4": encoded[1], "a/1.mp4": encoded[0]})
    with pytest.raises(faults.DecodeError, match="changed after it was opened; restart this job"):
        source.read_clip(0, first_and_last)


def test_evaluation_reads_labels_and_names(shards, encoded):
    settings = config.SourceConfig(kind="webdataset", path=str(shards / "shard-{000..000}.tar"))
    clip = config.ClipConfig(frames=2, size=16)
    evaluation = data.EvaluationSet(settings, clip=clip)
    assert evaluation.classes == {"class": ("3", "run", "walk")}
    assert evaluation.names == ("shard-000.tar/a/1.mp4", "shard-000.tar/a/2.avi", "shard-000.tar/a/3.mp4")
    (batch,) = evaluation.batches(3)
    assert batch["valid"].all()
    assert batch["labels"]["class"].tolist() == [0, 2, 1]
    assert evaluation.shared_with(data.EvaluationSet(settings, clip=clip)) == sorted(evaluation.source.paths)
    before = evaluation.identity
    write_tar(shards / "shard-000.tar", {"a/1.mp4": encoded[0], "a/1.cls": b"3"})
    assert data.EvaluationSet(settings, clip=clip).identity != before
    with pytest.raises(ConfigError, match=r"shard-001.tar/5.mp4 has no class"):
        data.EvaluationSet(dataclasses.replace(settings, path=str(shards / "shard-001.tar")), clip=clip)


def test_fingerprint_depends_on_content_but_not_on_location(shards, encoded, tmp_path):
    before = opened(shards / "shard-*.tar").fingerprint()
    assert before.names[0] == "shard-000.tar/a/1.mp4"
    assert before.sizes["shard-001.tar/5.mp4"] == len(encoded[0])
    moved = pathlib.Path(shutil.copytree(shards, tmp_path / "elsewhere"))
    assert opened(moved).fingerprint() == before
    changed = bytearray(encoded[0])
    changed[-1] ^= 1
    write_tar(moved / "shard-001.tar", {"4.cam1.mp4": encoded[0], "5.mp4": bytes(changed)})
    after = opened(moved).fingerprint()
    assert after.sizes == before.sizes
    assert {name for name in after.content if after.content[name] != before.content[name]} == {"shard-001.tar/5.mp4"}


def test_brace_patterns_are_expanded():
    assert list(webdataset.expand_braces("{a,b}-{8..10}.tar"))[:4] == ["a-8.tar", "a-9.tar", "a-10.tar", "b-8.tar"]
    assert list(webdataset.expand_braces("{08..10}")) == ["08", "09", "10"]
    assert list(webdataset.expand_braces("{x}.tar")) == ["{x}.tar"]


@dataclasses.dataclass(frozen=True)
class Stripes(interface.Source):
    """A source defined outside the package: clips of one grey level."""

    @classmethod
    def open(cls, settings, name, setting):
        return cls(name, settings, settings.clips, tuple(f"stripe {i}" for i in range(settings.clips)))

    def decode_clip(self, item, select_frames, transform, on_stage, out):
        frames = [transform(np.full((32, 32, 3), item, np.uint8)) for _ in select_frames(100, 25.0)]
        return np.stack(frames, out=out)


def test_class_outside_the_package_can_be_a_source(monkeypatch):
    monkeypatch.setattr(interface, "Stripes", Stripes, raising=False)
    kind = "jepa_jax.data.sources.interface:Stripes"
    settings = dataclasses.replace(
        settings_of(""), data=config.DataConfig(sources={"mine": config.SourceConfig(kind=kind, clips=12)}, workers=0)
    )
    for batch in data.TrainBatches(settings):
        assert (batch["video"] == batch["item"][:, None, None, None, None]).all()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "webdatset",
            "Did you mean 'webdataset'. Known here: directions, .*, images, .*, sprites, videos, webdataset",
        ),
        ("nowhere.at_all:Source", "cannot be imported"),
        ("jepa_jax.config:ClipConfig", "expected a subclass of jepa_jax.data.sources.Source"),
    ],
)
def test_unknown_kind_raises(kind, message):
    with pytest.raises(ConfigError, match=message):
        parse(config.Config, {"data": {"sources": {"mine": {"kind": kind}}}})


def test_source_configs_of_earlier_versions_are_unchanged():
    """Parses sources as stored in the config.json of earlier versions."""
    common = {"weight": 0.5, "frame_step": 2, "target_fps": 0, "window": "linspace", "include": "", "exclude": "x"}
    common |= {"difficulty": "easy", "split": "train", "fold": 1, "clips": 100}
    for kind in ("videos", "images", "sprites"):
        old = {"kind": kind, "path": "somewhere", **common}
        assert dataclasses.asdict(parse(config.SourceConfig, old)) == old
