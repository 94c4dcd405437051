import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.config import ClipConfig, SourceConfig
from jepa_jax.data import sprites
from jepa_jax.data.evaluation_clips import EvaluationSet
from jepa_jax.evaluation import labelled_clips
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.features.feature_set import Features
from jepa_jax.evaluation.probes import velocity
from jepa_jax.evaluation.results import intervals, table, velocity_result
from jepa_jax.settings import ConfigError

FRAMES, STEPS = 8, 4


def moving(clips, seed):
    """Velocities that differ in every frame."""
    return np.random.default_rng(seed).normal(size=(clips, FRAMES, 2)).astype(np.float32)


def features_of(velocity_IxFxXY, noise, backwards=False, seed=0):
    """Tokens that hold the velocities of the two frames of each time step, and noise."""
    clips = len(velocity_IxFxXY)
    seen = -velocity_IxFxXY[:, ::-1] if backwards else velocity_IxFxXY
    rng = np.random.default_rng(seed)
    tokens = np.concatenate(
        [seen.reshape(clips, STEPS, -1), noise * rng.normal(size=(clips, STEPS, 4))], -1
    ) + noise * rng.normal(size=(clips, STEPS, 8))
    return Features({"frames": tokens.astype(np.float16)}, {}, np.arange(clips, dtype=np.int32), 0.0)


def run(noise, static=False):
    train, test = moving(800, 1), moving(400, 2)
    if static:
        train[:, ::2], test[:, ::2] = 0, 0
    backwards = features_of(test, noise, backwards=True, seed=5)
    (result,) = velocity.run(
        {"trained": features_of(train, noise, seed=3)}, {"trained": features_of(test, noise, seed=4)},
        {"trained": backwards}, train, test, seed=0,
    )  # fmt: skip
    return result


def test_velocity_probe_reads_velocities_and_tells_opposite_ones_apart():
    # The frame's own velocity is one of two in its time step, so that half of the variance is explained.
    result = run(0.0)
    assert 0.4 < result.r_squared < 0.6
    assert result.pair_accuracy > 0.7
    assert (result.pairs, result.train, result.test) == (400, 800, 400)
    low, high = result.interval
    assert low < result.r_squared < high


def test_velocity_probe_of_noise_is_at_chance():
    result = run(1e3)
    low, high = result.pair_interval
    assert low < 0.5 < high
    assert -0.05 < result.r_squared < 0.05
    assert result.interval[0] < 0


def test_pairs_are_of_moving_frames_only():
    result = run(0.1, static=True)
    assert 100 < result.pairs < 300
    assert result.test == 400


def test_features_are_of_the_time_step_of_the_frame_and_of_its_mirror_image():
    clips = np.arange(5)
    tokens = np.broadcast_to(np.arange(STEPS, dtype=np.float16)[:, None], (5, STEPS, 1))
    time = np.array([1, 2, 3, 5, 6])
    np.testing.assert_array_equal(velocity.at_times(tokens, time, FRAMES)[:, 0], [0, 1, 1, 2, 3])
    np.testing.assert_array_equal(velocity.at_times(tokens, FRAMES - 1 - time, FRAMES)[:, 0], [3, 2, 2, 1, 0])
    drawn = velocity.random_times(FRAMES, np.arange(4000), [0, 1])
    assert set(drawn) == set(range(1, FRAMES - 1))
    np.testing.assert_array_equal(velocity.random_times(FRAMES, clips, [0, 1]), drawn[:5])


def test_score_counts_ties_as_half_and_leaves_out_unknown_pairs():
    true = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [1.0, 1.0]])
    settings = {"features": "trained", "true_IxXY": true, "train": 9, "penalty": 0.1}
    result = velocity_result.score(predicted_IxXY=true, backward_IxXY=-true, **settings)
    assert (result.r_squared, result.pair_accuracy, result.pairs) == (1.0, 1.0, 3)
    result = velocity_result.score(predicted_IxXY=true, backward_IxXY=true, **settings)
    assert result.pair_accuracy == 0.5
    result = velocity_result.score(predicted_IxXY=true, backward_IxXY=None, **settings)
    assert (result.pair_accuracy, result.pair_interval, result.pairs) == (None, None, 0)
    assert "1.000" in table.velocity_table([result])
    settings["true_IxXY"] = np.zeros((4, 2))  # nothing moves
    result = velocity_result.score(predicted_IxXY=true, backward_IxXY=true, **settings)
    assert (result.r_squared, result.interval, result.pair_accuracy, result.pairs) == (None, None, None, 0)
    assert "–" in table.velocity_table([result])


def test_interval_of_r_squared_covers_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        y = rng.normal(size=200)
        error = np.square(y - (0.6 * y + 0.4 * rng.normal(size=200)))
        _, (low, high) = intervals.r_squared(error, np.square(y - y.mean()))
        hits += low <= 1 - 0.32 <= high  # error variance 0.4² + 0.4²
    assert 0.9 < hits / 300 < 0.99


@pytest.mark.parametrize("difficulty", ["easy", "standard"])
def test_velocities_of_sprites_are_mean_steps_and_reverse_with_the_clip(difficulty):
    settings = SourceConfig(kind="sprites", clips=20, difficulty=difficulty)
    clips = EvaluationSet(settings, clip=ClipConfig(frames=FRAMES, size=32), seed=3)
    found = clips.velocities(np.arange(20, dtype=np.int32))
    assert found.shape == (20, FRAMES, 2)
    spec = sprites.SpriteSpec(FRAMES, 32, difficulty)
    for item in range(20):
        scene = sprites.scene(spec, 3, "train", item)
        position = np.stack(scene.sprite, -1)
        step = (np.diff(position, axis=0) + 16) % 32 - 16
        np.testing.assert_allclose(found[item, 1:-1] * 32, (step[:-1] + step[1:]) / 2)
        np.testing.assert_allclose(found[item, [0, -1]] * 32, step[[0, -1]])
        reverse = sprites.velocity(spec, sprites.reverse(scene).sprite)
        np.testing.assert_allclose(reverse, -found[item, ::-1])
    assert np.abs(found).max() == 2 * spec.half_cell / 32  # the longer step
    assert jnp.isfinite(found).all()


@pytest.mark.parametrize(
    ("changes", "frames", "message"),
    [
        ({"train": SourceConfig(kind="videos", path="x")}, 8, "config.train.kind is 'videos'"),
        ({}, 2, "at least 3 frames; they have 2"),
    ],
)
def test_velocity_of_unknown_or_too_short_clips_raises(changes, frames, message):
    config = EvalConfig(
        train=SourceConfig(kind="sprites"), test=SourceConfig(kind="sprites", split="test"), velocity=True
    )
    with pytest.raises(ConfigError, match=message):
        labelled_clips.check_velocity(dataclasses.replace(config, **changes), ClipConfig(frames=frames, size=32))
