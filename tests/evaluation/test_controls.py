import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jepa_jax.data import sprites
from jepa_jax.evaluation import controls
from jepa_jax.evaluation.features import extractor
from jepa_jax.evaluation.features.extractor import FeatureExtractor

ROW = jnp.arange(200, dtype=jnp.int32)


def counting(clips=200, frames=6, size=4):
    """Every pixel of frame t of clip i is i + t/10."""
    level = np.arange(clips)[:, None] + np.arange(frames) / 10
    return jnp.broadcast_to(jnp.float32(level)[..., None, None, None], (clips, frames, size, size, 3))


def times(video):
    return np.rint((np.asarray(video)[:, :, 0, 0, 0] % 1) * 10).astype(int)


def test_one_frame_repeats_a_frame_at_a_uniformly_random_time():
    video = counting()
    seen = controls.OneFrame(0)(video, ROW)
    assert seen.shape == video.shape
    np.testing.assert_array_equal(np.asarray(seen)[:, 0, 0, 0, 0].astype(int), ROW)
    time = times(seen)
    assert (time == time[:, :1]).all()
    assert stats.chisquare(np.bincount(time[:, 0], minlength=6)).pvalue > 1e-3
    assert (times(controls.OneFrame(1)(video, ROW)) != time).any()


def test_shuffled_is_a_uniformly_random_permutation_of_the_frames():
    video = counting()
    time = times(controls.Shuffled(0)(video, ROW))
    np.testing.assert_array_equal(np.sort(time, axis=1), np.broadcast_to(np.arange(6), time.shape))
    for position in range(6):
        assert stats.chisquare(np.bincount(time[:, position], minlength=6)).pvalue > 1e-3


def test_backwards_matches_reversed_sprites_and_their_labels():
    spec = sprites.SpriteSpec(8, 16)
    scenes = jax.vmap(lambda item: sprites.scene(spec, 0, "test", item))(jnp.arange(32))
    backwards = jax.vmap(sprites.reverse)(scenes)
    seen = controls.Backwards()(sprites.draw(spec, scenes), ROW[:32])
    np.testing.assert_array_equal(seen, sprites.draw(spec, backwards))
    labels = jax.device_get(scenes.labels)
    for task, values in sprites.reverse_labels(labels).items():
        np.testing.assert_array_equal(values, backwards.labels[task])
    assert (labels["order"] != backwards.labels["order"]).all()


@pytest.mark.parametrize("transform", [controls.OneFrame(3), controls.Shuffled(3), controls.FramePixels(3)])
def test_random_controls_depend_on_the_row_but_not_on_the_batch(transform):
    video = counting(20)
    apply = transform if not isinstance(transform, controls.FramePixels) else lambda v, r: transform({}, v, r)["mean"]
    whole = jax.jit(apply)(video, ROW[:20])
    some = np.array([7, 3, 19])
    np.testing.assert_array_equal(apply(video[some], ROW[some]), np.asarray(whole)[some])


def test_frame_pixels_are_those_of_one_coarse_frame():
    video = np.random.default_rng(0).integers(0, 256, (5, 4, 64, 64, 3)).astype(np.uint8)
    first = controls.FramePixels()({}, jnp.asarray(video), ROW[:5])
    expected = video[:, 0].reshape(5, 16, 4, 16, 4, 3).mean((2, 4)) / 255
    np.testing.assert_allclose(first["mean"], expected.reshape(5, -1), atol=1e-6)
    assert first["frames"].shape == first["all"].shape == (5, 1, 16 * 16 * 3)
    drawn = np.asarray(controls.FramePixels(0)({}, jnp.asarray(video), ROW[:5])["mean"])
    every = video.reshape(5, 4, 16, 4, 16, 4, 3).mean((3, 5)).reshape(5, 4, -1) / 255
    gap = np.abs(drawn[:, None] - every).max(-1)
    assert (gap.min(1) < 1e-6).all()
    assert len(set(gap.argmin(1))) > 1  # the time varies


@pytest.mark.parametrize(("side", "kept"), [(8, 8), (16, 16), (40, 20), (224, 16)])
def test_coarse_frames_have_about_16_pixels_per_side(side, kept):
    coarse = controls.coarse(jnp.full((1, 2, side, side, 3), 51, jnp.uint8))
    assert coarse.shape == (1, 2, kept, kept, 3)
    np.testing.assert_allclose(coarse, 0.2, rtol=1e-6)


def test_frame_differences_encode_change_but_not_appearance():
    still = np.random.default_rng(0).integers(0, 200, (1, 1, 16, 16, 3)).repeat(4, axis=1).astype(np.uint8)
    moved = still.copy()
    moved[0, 2, 3, 5] += 51
    apply = controls.FrameDifferences()
    assert not np.asarray(apply({}, jnp.asarray(still), ROW[:1])["mean"]).any()
    change = np.asarray(apply({}, jnp.asarray(moved), ROW[:1])["frames"]).reshape(3, 16, 16)
    assert {tuple(index) for index in np.argwhere(change).tolist()} == {(1, 3, 5), (2, 3, 5)}
    np.testing.assert_allclose(change[1:, 3, 5], 0.2, rtol=1e-5)


def test_frame_means_and_difference_energy_are_global():
    video = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 8, 3)).astype(np.uint8)
    means = controls.FrameMeans()({}, jnp.asarray(video), ROW[:3])
    np.testing.assert_allclose(means["frames"], video.mean((2, 3)) / 255, rtol=1e-5)
    np.testing.assert_array_equal(means["mean"], np.asarray(means["frames"]).reshape(3, -1))
    energy = controls.DifferenceEnergy()({}, jnp.asarray(video), ROW[:3])
    expected = np.square(np.diff(video / 255, axis=1)).mean((2, 3, 4))
    np.testing.assert_allclose(energy["mean"], expected, rtol=1e-5)
    assert energy["frames"].shape == (3, 3, 1)


def look(params, video, row):
    return {"mean": video.mean((2, 3, 4))}


def test_control_encoders_transform_clips_and_have_distinct_identities():
    trained = FeatureExtractor(look, {}, {"params": "abc"}, "here")
    video = counting(4)
    pixels = ("raw pixels", "first frame", "frame differences", "frame means", "difference energy")
    names = (*pixels, "one frame", "shuffled", "reversed")
    encoders = {name: controls.encoder(name, trained, 0) for name in names}
    reverse = extractor.Device().bind(encoders["reversed"], (("mean", "float16"),))
    rows = {name: jnp.concatenate([x[:4], x[:4]]) for name, x in {"video": video, "row": ROW}.items()}  # 8 devices
    np.testing.assert_allclose(reverse(rows)["mean"]["features"][:4], video[:, ::-1, 0, 0, 0], atol=2e-3)
    assert all(encoders[name].apply is trained.apply for name in ("one frame", "shuffled", "reversed"))
    assert len({str(encode.identity) for encode in [trained, *encoders.values()]}) == 9
    other_seed = controls.encoder("shuffled", trained, 1)
    assert other_seed.identity != encoders["shuffled"].identity
    for name in ("one frame", "shuffled", "reversed"):
        assert encoders[name].identity["params"] == "abc"
    for name in pixels:
        assert "params" not in encoders[name].identity  # these do not use the encoder
