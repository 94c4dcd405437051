import dataclasses
import re

import jax
import numpy as np
import pytest
from PIL import Image

from jepa_jax import data
from jepa_jax.config import DataConfig, SourceConfig
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.settings import ConfigError
from jepa_jax.show import kinds
from jepa_jax.show.kinds import masks
from jepa_jax.training import step as training_step
from jepa_jax.training.setup import build_setup, init_state


@pytest.fixture
def config(training_run):
    return frozen_encoder.load(str(training_run)).config


def test_masks_are_those_that_the_training_step_draws(config):
    setup = build_setup(config)
    state = jax.jit(lambda: init_state(setup, config.seed))()
    state = dataclasses.replace(state, step=state.step + 2)
    batch = jax.tree.map(jax.numpy.asarray, next(data.TrainBatches(config, start_step=2)))
    _, ((context, target),), _ = training_step.prepare(setup, state, batch)
    video = np.zeros((config.batch_size, *config.clip.shape), np.uint8)
    ((found_context, found_target),) = masks.draw_masks(config, video, 2).values()
    for index, found in ((context, found_context), (target, found_target)):
        np.testing.assert_array_equal(np.flatnonzero(found[1]), index[1])


def test_picture_has_a_row_of_frames_and_one_of_each_mask(request_of):
    (file,) = kinds.draw("masks", request_of(step=1, clips=1))
    one = np.asarray(Image.open(file))
    (file,) = kinds.draw("masks", request_of(step=1, clips=5))  # a batch has 2
    assert np.asarray(Image.open(file)).shape[0] - one.shape[0] == 2 * (96 + 4) + 18


def test_masks_of_own_videos(request_of, videos):
    (file,) = kinds.draw("masks", request_of(source=SourceConfig(path=str(videos)), clips=3))
    assert np.asarray(Image.open(file)).shape[0] > 6 * 96


def test_source_shows_labels_and_skipped_files(request_of, config, videos, tmp_path, capsys):
    folder = tmp_path / "set"
    for name in ("walk/a.mp4", "run/c.mp4"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes((videos / name).read_bytes())
    (folder / "walk" / "damaged.mp4").write_bytes(b"no video")
    source = SourceConfig(path=str(folder))
    data_config = DataConfig(sources={"mine": source}, workers=0, max_skip_fraction=0.5)
    settings = {"config": dataclasses.replace(config, data=data_config), "checkpoint": "", "clips": 4}
    (file,) = kinds.draw("source", request_of(**settings))
    printed = capsys.readouterr().out
    assert "mine (3 videos, weight 1)" in printed
    assert re.search(r"Skipped so far: 1\n\S+damaged\.mp4: ", printed)
    first = np.asarray(Image.open(file))
    assert first.shape[0] > 4 * 96
    kinds.draw("source", request_of(**settings))
    np.testing.assert_array_equal(np.asarray(Image.open(file)), first)


def test_source_of_rendered_clips(request_of):
    (file,) = kinds.draw("source", request_of(clips=3))
    assert np.asarray(Image.open(file)).shape[0] > 3 * 96


@pytest.mark.parametrize(
    ("what", "settings", "message"),
    [
        ("masks", {"step": 4}, "--step is 4; the run has steps 0 to 3."),
        ("source", {"checkpoint": ""}, "source needs a training config: add --config=NAME"),
        ("masks", {"checkpoint": "random:nowhere"}, "there is no training run and no training config nowhere"),
    ],
)
def test_requests_that_cannot_be_served(request_of, what, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        kinds.draw(what, request_of(**settings))
