"""Surprise, similarity and neighbours."""

import dataclasses
import re
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jepa_jax import masks
from jepa_jax.checkpoints import manager
from jepa_jax.checkpoints.reader import CheckpointError
from jepa_jax.config import SourceConfig
from jepa_jax.models import pixels
from jepa_jax.objectives.prediction import Prediction
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError
from jepa_jax.show import clips, kinds, plots, predictor
from jepa_jax.show.kinds import neighbours, similarity, surprise
from jepa_jax.training import step as training_step
from jepa_jax.training.setup import build_setup, init_state


@pytest.fixture(scope="module")
def model(training_run):
    return predictor.load(str(training_run))


def test_error_is_the_prediction_loss(model, request_of):
    video = clips.read(request_of(clips=2), model.config).video_BxFxYxXx3
    found = predictor.predict(model, video, draws=1)
    key = jax.random.fold_in(jax.random.key(model.config.seed), 0)

    @jax.jit
    def prediction_loss(params, target_params):
        normalised = pixels.normalise(video)
        indices = masks.draw_all(model.setup.masks, key, normalised)
        latents = training_step.make_latents(model.setup, params, target_params, normalised, indices)
        return Prediction().view_value(None, latents.views[0], latents), indices[0][1].size

    loss, count = prediction_loss(model.params, model.target_params)
    np.testing.assert_allclose(np.nanmean(found.error_BxTxHxW), loss, rtol=1e-5)
    hidden = ~np.isnan(found.error_BxTxHxW)
    assert hidden.sum() == count
    np.testing.assert_array_equal(np.isnan(found.predicted_BxTxHxWxE).all(-1), ~hidden)


def test_predictors_of_checkpoint_and_of_initial_parameters_agree(model, training_run):
    initial = predictor.load(f"random:{training_run}")
    for one, other in zip(jax.tree.leaves(initial.params), jax.tree.leaves(model.params), strict=False):
        np.testing.assert_array_equal(one, other)


def test_error_per_frame_leaves_out_what_was_never_hidden():
    error = np.array([[[[1.0, np.nan]], [[np.nan, np.nan]], [[2.0, 4.0]]]])
    np.testing.assert_array_equal(surprise.per_frame(error), [[1.0, np.nan, 3.0]])


def test_plot_of_errors_marks_the_peak():
    with plots.style():
        figure = surprise.error_by_frame(["a", "b"], np.array([[0.1, 0.4], [0.3, 0.2]]), frames=4)
        (axes,) = figure.axes
        peaks = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "v"]
        assert peaks == [[[2.0, 0.4]], [[0.0, 0.3]]]
        assert axes.get_xlabel() == "frame (2 frames a time step)"
        first = plots.pixels(figure)
    with plots.style():
        again = surprise.error_by_frame(["a", "b"], np.array([[0.1, 0.4], [0.3, 0.2]]), frames=4)
        np.testing.assert_array_equal(plots.pixels(again), first)


def test_surprise_writes_a_picture(request_of):
    (file,) = kinds.draw("surprise", request_of(clips=2, draws=2))
    assert np.asarray(Image.open(file)).shape[0] > 8 * 96 + 200


def test_a_plot_without_matplotlib_says_how_to_install_it(request_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=re.escape("needs matplotlib: pip install 'jepa_jax[show]'")):
        kinds.draw("surprise", request_of())


@pytest.mark.slow
def test_checkpoint_without_predictor_or_of_another_step(training_run, tmp_path, model):
    with pytest.raises(CheckpointError, match=r"has no checkpoint of step 3; it has 4\."):
        predictor.load(f"{training_run}:3")
    workdir.open_workdir(tmp_path, model.config)
    with pytest.raises(CheckpointError, match="has no checkpoint; it has none"):
        predictor.load(str(tmp_path))
    state = jax.jit(lambda: init_state(build_setup(model.config), 0))()
    encoder_only = dataclasses.replace(state, params={"encoder": state.params["encoder"]})
    with manager.Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(1, encoder_only)
    with pytest.raises(CheckpointError, match="has no predictor, whose errors this picture shows; use the --workdir"):
        predictor.load(str(tmp_path))


def test_cosine_is_1_at_the_token_and_minus_1_opposite_to_it():
    tokens = np.zeros((1, 1, 2, 2, 2))
    tokens[0, 0] = [[[11, 5], [10, 6]], [[9, 5], [10, 4]]]  # about the mean (10, 5)
    np.testing.assert_allclose(similarity.cosine(tokens, (0, 0, 0))[0, 0], [[1, 0], [-1, 0]], atol=1e-12)


def test_equal_tokens_have_a_cosine_of_0():
    np.testing.assert_array_equal(similarity.cosine(np.ones((1, 1, 2, 2, 3)), (0, 0, 0)), np.zeros((1, 1, 2, 2)))


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ((2, 0, 0), "--token=2,0,0 is outside of the grid: columns 0 to 1, rows 0 to 1, time steps 0 to 1."),
        ((0, 0), "--token is 0,0; expected COLUMN,ROW,TIME: columns 0 to 1"),
    ],
)
def test_tokens_outside_of_the_grid_raise(request_of, token, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        kinds.draw("similarity", request_of(token=token))


def test_similarity_writes_a_picture(request_of):
    assert similarity.place_of((1, 0, 1), (2, 2, 2)) == (1, 0, 1)
    (file,) = kinds.draw("similarity", request_of(token=(1, 0, 1), clips=2))
    assert np.asarray(Image.open(file)).shape[0] > 4 * 96


def test_nearest_leaves_out_the_query():
    features = np.array([[1.0, 0], [2, 0], [1, 1], [0, 1]])
    found, cosine = neighbours.nearest(features, np.array([0]), 5)
    assert found.tolist() == [[1, 2, 3]]
    np.testing.assert_allclose(cosine, [[1, 0.5**0.5, 0]], atol=1e-12)


def test_neighbours_writes_a_sheet(request_of, videos):
    (file,) = kinds.draw("neighbours", request_of(items=(1,), neighbours=2))
    assert np.asarray(Image.open(file)).shape[1] > 3 * 3 * 96
    (file,) = kinds.draw("neighbours", request_of(source=SourceConfig(path=str(videos)), clips=1))
    assert np.asarray(Image.open(file)).shape[1] > 3 * 3 * 96


def test_neighbours_need_a_set(request_of, videos):
    with pytest.raises(ConfigError, match="a single clip; name a folder, a CSV file or a prepared dataset"):
        kinds.draw("neighbours", request_of(source=SourceConfig(path=str(videos / "run" / "c.mp4"))))
    with pytest.raises(ConfigError, match="--source has 1 clips that can be decoded; neighbours needs at least 2"):
        kinds.draw("neighbours", request_of(source=SourceConfig(path=str(videos / "run"))))
