import dataclasses
import shutil

import pytest

from jepa_jax import config
from jepa_jax.data import sources
from jepa_jax.settings import ConfigError, parse

SourceConfig = config.SourceConfig


def opened(**settings):
    return sources.open_source(SourceConfig(**settings), "mine")


def names(source, root):
    return [path.removeprefix(f"{root}/") for path in source.paths]


def test_folder_of_classes_has_paths_classes_and_labels(clips):
    source = opened(path=str(clips))
    assert source.size == 8
    assert names(source, clips)[:2] == ["a/0.mp4", "a/1.mp4"]
    assert names(source, clips)[-1] == "b/2 with space.avi"
    assert source.classes == ("a", "b")
    assert source.labels.tolist() == [0] * 5 + [1] * 3


def test_flat_folder_has_no_labels(clips):
    source = opened(path=str(clips / "a"))
    assert source.size == 5
    assert source.classes == ()
    assert set(source.labels.tolist()) == {sources.UNLABELLED}


def test_other_and_hidden_files_are_ignored(tmp_path):
    for name in ("a/1.MP4", "a/notes.txt", "a/._1.mp4", ".cache/2.mp4", "a/deep/3.webm", "b/picture.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(opened(path=str(tmp_path)), tmp_path) == ["a/1.MP4", "a/deep/3.webm"]
    assert names(opened(path=str(tmp_path), kind="images"), tmp_path) == ["b/picture.jpg"]


def test_include_and_exclude_select_paths_and_their_classes(clips):
    assert names(opened(path=str(clips), include=r"[12]", exclude="space"), clips) == ["a/1.mp4", "a/2.mp4"]
    only_b = opened(path=str(clips), include="^b/")
    assert only_b.classes == ("b",)
    assert set(only_b.labels.tolist()) == {0}


def test_csv_lines_have_a_path_and_a_label(clips, tmp_path):
    shutil.copytree(clips / "b", tmp_path / "videos")
    file = tmp_path / "train.csv"
    file.write_text(f"videos/0 with space.avi 4\n\n{clips}/a/0.mp4 0\n  videos/1 with space.avi\t2 \n")
    source = opened(path=str(file))
    assert source.paths == (
        f"{tmp_path}/videos/0 with space.avi",
        f"{clips}/a/0.mp4",
        f"{tmp_path}/videos/1 with space.avi",
    )
    assert source.labels.tolist() == [2, 0, 1]
    assert source.classes == ("0", "2", "4")


@pytest.mark.parametrize("line", ["b.mp4", "b.mp4 walk", "b.mp4 1.5", "3", "path,label", "path label", "b.mp4,3"])
def test_invalid_csv_line_raises_with_its_number(tmp_path, line):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.csv").write_text(f"a.mp4 0\n{line}\na.mp4 1\n")
    with pytest.raises(ConfigError) as caught:
        opened(path=str(tmp_path / "list.csv"))
    assert f"{tmp_path}/list.csv:2: {line!r}" in str(caught.value)


def test_missing_listed_file_raises_with_its_line(tmp_path):
    (tmp_path / "a.mp4").touch()
    for path in ("b.mp4", "nowhere/a.mp4"):
        (tmp_path / "list.csv").write_text(f"a.mp4 0\n{path} 1\n")
        with pytest.raises(ConfigError, match=rf"list.csv:2: {tmp_path}/{path} does not exist"):
            opened(path=str(tmp_path / "list.csv"))


def test_empty_or_binary_list_raises(tmp_path):
    (tmp_path / "list.csv").write_text("\n\n")
    with pytest.raises(ConfigError, match=r"list.csv is empty; expected lines of"):
        opened(path=str(tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"list.csv is not text"):
        opened(path=str(tmp_path / "list.csv"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"config.data.sources.mine.path is empty"),
        ({"path": "gs://bucket/videos"}, r"mine.path is gs://bucket/videos; expected a path on this machine"),
        ({"path": "/no/such/folder"}, r"config.data.sources.mine.path: /no/such/folder does not exist"),
    ],
)
def test_invalid_paths_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        opened(**settings)


def test_folder_without_clips_raises_and_lists_its_suffixes(tmp_path):
    with pytest.raises(ConfigError, match=r"no videos in .*found nothing"):
        opened(path=str(tmp_path))
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ConfigError, match=r"no videos in .*\.mp4.*found \.jpg"):
        opened(path=str(tmp_path))


def test_invalid_patterns_or_patterns_without_matches_raise(clips):
    with pytest.raises(ConfigError, match=r"mine.include: 'nothing' leaves none of 8 files, such as 'a/0.mp4'"):
        opened(path=str(clips), include="nothing")
    with pytest.raises(ConfigError, match=r"mine.exclude: '\.' leaves none"):
        opened(path=str(clips), exclude=".")
    with pytest.raises(ConfigError, match=r"mine.include: '\(' is not a valid regular expression"):
        opened(path=str(clips), include="(")


def test_sources_with_weight_0_are_not_opened(clips):
    settings = {"off": SourceConfig(path="/no/such/folder", weight=0.0), "on": SourceConfig(path=str(clips))}
    off, on = sources.open_sources(config.DataConfig(sources=settings))
    assert off is None
    assert on is not None
    assert on.name == "on"


def test_no_source_with_positive_weight_raises(clips):
    for settings in ({}, {"a": SourceConfig(path=str(clips), weight=0.0)}):
        with pytest.raises(ConfigError, match="no source with a weight above 0"):
            sources.open_sources(config.DataConfig(sources=settings))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"sources": {"a": {"weight": -1.0}}}, r"config.data.sources.a: weight is -1.0"),
        ({"sources": {"a": {"frame_step": 0}}}, r"config.data.sources.a: frame_step is 0"),
        ({"sources": {"a": {"target_fps": -5}}}, r"config.data.sources.a: target_fps is -5"),
        ({"sources": {"a": {"clips": 0}}}, r"config.data.sources.a: clips is 0"),
        ({"augment": {"crop_area": (0.5, 2.0)}}, r"config.data.augment: crop_area is \(0.5, 2.0\)"),
        ({"augment": {"crop_aspect": (2.0, 1.0)}}, r"config.data.augment: crop_aspect is \(2.0, 1.0\)"),
        ({"augment": {"flip_probability": 1.5}}, r"config.data.augment: flip_probability is 1.5"),
        ({"workers": -1}, r"config.data: workers is -1"),
        ({"max_skip_fraction": 5.0}, r"config.data: max_skip_fraction is 5.0"),
    ],
)
def test_values_out_of_range_raise(setting, message):
    with pytest.raises(ConfigError, match=message):
        parse(config.Config, {"data": setting})


def test_real_folders_are_listed(real_data):
    source = opened(path=str(real_data / "ut_interaction"))
    assert source.size == 120
    assert len(source.classes) == 6
    assert opened(path=str(real_data / "cifar10_small" / "test"), kind="images").size == 2000


@pytest.mark.parametrize(
    ("typed", "path", "origin"),
    [({"path": "nowhere"}, "nowhere", "config.data.path"), ({"root": "sets"}, "sets/ucf101", "config.data.root")],
)
def test_error_names_the_setting_that_the_path_comes_from(typed, path, origin):
    settings = config.DataConfig(**typed, sources={"mine": SourceConfig(path=path)})
    with pytest.raises(ConfigError, match=rf"mine\.path: {path} does not exist .*comes from --{origin}"):
        sources.open_sources(settings)
    own = dataclasses.replace(settings, sources={"mine": SourceConfig(path="elsewhere")})
    with pytest.raises(ConfigError) as error:
        sources.open_sources(own)
    assert "comes from" not in str(error.value)
