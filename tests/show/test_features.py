import re

import av
import numpy as np
import pytest
from PIL import Image

from jepa_jax.config import SourceConfig
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.pictures import clip_sheets
from jepa_jax.settings import ConfigError
from jepa_jax.show import clips, kinds, tokens
from jepa_jax.show.kinds import features


def test_features_writes_a_sheet_and_a_film(request_of, videos):
    rows = ("output", "levels", "halves", "untrained")
    request = request_of(source=SourceConfig(path=str(videos)), clips=2, rows=rows, film="mp4")
    picture, film = kinds.draw("features", request)
    image = np.asarray(Image.open(picture))
    assert image.shape[0] > 2 * 7 * 96  # two clips of a row of frames and six of features
    with av.open(str(film)) as container:
        assert len(list(container.decode(video=0))) == 4
    first = image.copy()
    kinds.draw("features", request)
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), first)


def test_rows_are_named_and_those_of_initial_parameters_are_untrained_ones(request_of, training_run):
    frozen = frozen_encoder.load(str(training_run))
    chosen = clips.read(request_of(clips=2), frozen.config)
    found = features.token_rows(frozen, chosen, features.ROWS)
    assert list(found) == ["trained", "level 1", "level 2", "appearance", "dynamics", "untrained"]
    np.testing.assert_array_equal(found["trained"], found["untrained"])
    np.testing.assert_array_equal(found["trained"], found["level 2"])
    assert found["level 1"].shape == (2, 2, 2, 2, 16)
    halves = np.concatenate([found["appearance"], found["dynamics"]], axis=-1)
    np.testing.assert_array_equal(halves, tokens.encode(frozen, chosen.video_BxFxYxXx3))


def test_clips_of_a_row_have_one_basis():
    values = np.random.default_rng(0).normal(size=(2, 1, 2, 2, 4))
    painted = clip_sheets.paint({"a": values}, (8, 8), smooth=False)["a"]
    np.testing.assert_array_equal(clip_sheets.paint({"a": values[::-1]}, (8, 8), smooth=False)["a"], painted[::-1])
    assert painted.shape == (2, 1, 8, 8, 3)


def test_foreground_blackens_the_rest():
    values = np.random.default_rng(0).normal(size=(1, 1, 6, 6, 4)) * 0.05
    values[:, :, 2:4, 2:4] += 3
    painted = clip_sheets.paint({"a": values}, (12, 12), smooth=False, foreground=True)["a"][0, 0]
    black = (painted == 0).all(-1)
    assert not black[4:8, 4:8].any()
    assert black.sum() == 12 * 12 - 16
    with pytest.raises(ValueError, match="all tokens are alike"):
        clip_sheets.paint({"a": np.ones((1, 1, 2, 2, 4))}, (4, 4), foreground=True)


def test_clips_are_those_of_the_run_by_default(request_of, training_run):
    config = frozen_encoder.load(str(training_run)).config
    chosen = clips.read(request_of(clips=4), config)
    assert chosen.names == ("sprites 0", "sprites 3", "sprites 6", "sprites 9")
    assert all(label.count(", ") == 4 for label in chosen.labels)  # appearance, motion, three events
    one = clips.read(request_of(items=(3,)), config)
    np.testing.assert_array_equal(one.video_BxFxYxXx3[0], chosen.video_BxFxYxXx3[1])


def test_files_and_folders_have_names_and_labels(request_of, videos, training_run):
    config = frozen_encoder.load(str(training_run)).config
    chosen = clips.read(request_of(source=SourceConfig(path=str(videos))), config)
    assert chosen.titles == ("run/c.mp4 (run)", "walk/a.mp4 (walk)", "walk/b.mp4 (walk)")
    one = clips.read(request_of(source=SourceConfig(path=str(videos / "walk" / "b.mp4"))), config)
    assert one.titles == ("b.mp4",)
    np.testing.assert_array_equal(one.video_BxFxYxXx3[0], chosen.video_BxFxYxXx3[2])


def test_undecodable_clips_are_named_and_left_out(request_of, training_run, tmp_path, videos, capsys):
    config = frozen_encoder.load(str(training_run)).config
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.mp4").write_bytes(b"no video")
    source = SourceConfig(path=str(tmp_path / "set"))
    with pytest.raises(ConfigError, match=r"--source: none of these clips .*\s+\S+a\.mp4: "):
        clips.read(request_of(source=source), config)
    (tmp_path / "set" / "b.mp4").write_bytes((videos / "walk" / "b.mp4").read_bytes())
    assert clips.read(request_of(source=source), config).names == ("b.mp4",)
    assert re.search(r"Not shown: \S+a.mp4: ", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": ("output", "halfs")}, "--rows has 'halfs'. Did you mean 'halves'?"),
        ({"checkpoint": ""}, "features needs an encoder: add --checkpoint="),
        ({"items": (10,)}, "--items has 10; the source has clips 0 to 9."),
        ({"source": SourceConfig(path="nowhere.mp4")}, "--source: nowhere.mp4 does not exist"),
        ({"source": SourceConfig(path="nowhere")}, "--source.path: nowhere does not exist"),
    ],
)
def test_requests_that_cannot_be_served(request_of, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        kinds.draw("features", request_of(**settings))


def test_damaged_file_and_empty_folder(request_of, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ConfigError, match=r"--source: .*a\.mp4"):
        kinds.draw("features", request_of(source=SourceConfig(path=str(tmp_path / "a.mp4"))))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"--source\.path: "):
        kinds.draw("features", request_of(source=SourceConfig(path=str(tmp_path / "empty"))))


def test_evaluation_ends_with_trained_beside_untrained(training_run):
    config = EvalConfig(test=SourceConfig(kind="sprites", split="test", clips=8), train=SourceConfig(kind="sprites"))
    beside = features.beside_untrained(config, str(training_run))
    alone = features.beside_untrained(config, f"random:{training_run}")
    assert beside.shape[0] - alone.shape[0] == 3 * (96 + 4)


def test_command_says_what_is_wrong(forks, tmp_path):
    for arguments, message in [
        (["feature"], "Error: there is no picture 'feature'. Did you mean 'features'?"),
        (["features", "--out=x", "--items=a"], "Error: --items is 'a'; expected whole numbers"),
        (["features", "--out=x", "--film=avi"], "Error: --film is 'avi'"),
    ]:
        done = forks.run("jepa_jax.show", *arguments, cwd=tmp_path)
        assert (done.returncode, message in done.stderr) == (1, True), (arguments, done.stderr)
