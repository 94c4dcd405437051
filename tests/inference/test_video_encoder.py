"""`encoder(clips)`: features of arrays and files in Python."""

import dataclasses

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_encoder import LEVELS, build, random_clips

import jepa_jax
from jepa_jax import models
from jepa_jax.data import DecodeError, augment, sampling
from jepa_jax.inference import clip_reading, video_encoder
from jepa_jax.models import pixels
from jepa_jax.preprocessing import VJEPA2, Preprocessing


def direct(encoder, video):
    """Features of all levels [B, N, D]."""
    module = models.build_encoder(encoder.settings)
    return jax.jit(lambda x: module.apply({"params": encoder.params}, pixels.normalise(x), all_levels=True))(video)


def test_features_are_the_encoders_output_of_each_token_and_level(encoder):
    clips = random_clips(3)
    features, expected = encoder(clips), np.asarray(direct(encoder, clips))
    assert features.grid == (2, 2, 2)
    assert features.tokens.shape == (3, 2, 2, 2, 16)
    assert features.tokens.dtype == np.float32
    first, last = features.levels
    np.testing.assert_allclose(first.reshape(3, 8, 16), expected[..., :16], atol=1e-5)
    np.testing.assert_allclose(last.reshape(3, 8, 16), expected[..., 16:], atol=1e-5)
    np.testing.assert_array_equal(features.tokens, last)
    np.testing.assert_allclose(features.mean(), expected[..., 16:].mean(1), atol=1e-5)


def test_one_clip_several_and_lists_agree_in_any_batch(encoder):
    clips = random_clips(35)  # more than a batch
    together = encoder(clips).tokens
    np.testing.assert_allclose(encoder(clips[0]).tokens, together[:1], atol=1e-5)
    np.testing.assert_allclose(encoder(list(clips)).tokens, together, atol=1e-5)
    for number in (1, 34):
        np.testing.assert_allclose(encoder(clips[number]).tokens, together[number : number + 1], atol=1e-5)


def test_each_shape_is_compiled_once(encoder):
    encoder(random_clips(2, side=24))
    compiled = video_encoder._encode._cache_size()
    encoder(random_clips(2, side=24))
    assert video_encoder._encode._cache_size() == compiled


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A lossless video and its frames, [8, 40, 60, 3]."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    picture = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    frames = np.stack([np.roll(picture, shift, axis=1) for shift in range(8)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 60, 40, "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path, frames


@pytest.mark.parametrize("preprocessing", [pytest.param(Preprocessing(), marks=pytest.mark.slow), VJEPA2])
def test_a_file_is_encoded_as_in_the_encoders_own_evaluation(encoder, video, preprocessing):
    path, frames = video
    own = dataclasses.replace(encoder, preprocessing=preprocessing)
    spread = frames[sampling.spread_window(len(frames), 4)]
    view = augment.centre_view(spread, 16, 16, preprocessing=preprocessing)
    expected = np.asarray(direct(encoder, view[None])).reshape(1, 2, 2, 2, 2, 16)[..., -1, :]
    np.testing.assert_allclose(own([path, str(path)]).tokens, np.repeat(expected, 2, axis=0), atol=1e-5)
    np.testing.assert_allclose(own(path).tokens, expected, atol=1e-5)


def test_v_jepa_2_resizes_the_short_side_to_256_224ths_of_the_crop(video):
    _, frames = video
    crop = augment.centre_view(frames, 28, 28, preprocessing=VJEPA2)
    whole = augment.centre_view(frames, 32, 32)
    np.testing.assert_array_equal(crop, whole[:, 2:30, 2:30])
    image = augment.centre_view_of_image(frames[0], 28, 28, VJEPA2)
    np.testing.assert_array_equal(image, augment.centre_view_of_image(frames[0], 32, 32)[2:30, 2:30])
    assert VJEPA2.resized(256) == 292
    assert VJEPA2.resized(384) == 438


@pytest.mark.slow
def test_normalization_is_that_of_the_encoder(encoder):
    own = dataclasses.replace(encoder, preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5)))
    clips = random_clips(1)
    module = models.build_encoder(encoder.settings)
    normalized = (jnp.asarray(clips, jnp.float32) / 255 - 0.5) / np.array([0.5, 0.25, 0.5], np.float32)
    expected = jax.jit(module.apply)({"params": encoder.params}, normalized)
    np.testing.assert_allclose(own(clips).tokens.reshape(1, 8, 16), expected, atol=1e-5)


def test_an_image_is_a_clip_of_one_frame(encoder, tmp_path):
    picture = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    features = encoder(tmp_path / "picture.png")
    assert features.grid == (1, 2, 2)
    np.testing.assert_allclose(features.tokens, encoder(picture[None]).tokens, atol=1e-5)


def test_files_are_read_at_another_size_and_arrays_at_their_own(encoder, video):
    assert encoder(video[0], frames=8, size=(16, 24)).grid == (4, 2, 3)
    assert encoder(np.zeros((6, 16, 24, 3), np.uint8)).grid == (3, 2, 3)


@pytest.mark.slow
def test_apply_is_a_pure_function_and_the_encoder_a_pytree(encoder):
    clips = random_clips(2)
    leaves = jax.tree.leaves(encoder)
    assert len(leaves) == len(jax.tree.leaves((encoder.params, encoder.predictor_params)))

    @jax.jit
    def loss(encoder, video):
        return jnp.square(encoder.apply(encoder.params, video).mean()).sum()

    value, gradient = jax.value_and_grad(loss)(encoder, jnp.asarray(clips))
    assert isinstance(gradient, jepa_jax.VideoEncoder)
    assert gradient.settings == encoder.settings
    np.testing.assert_allclose(value, np.square(encoder(clips).mean()).sum(), rtol=1e-5)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient.params["patch_embedding"]))


@pytest.mark.slow
def test_predict_is_the_predictor_on_the_features_of_the_visible_tokens(encoder):
    clips, context, target = random_clips(2), np.array([[0, 1, 5], [2, 3, 4]]), [6, 7]
    predictor = models.build_predictor(encoder.predictor_settings, encoder.settings)
    target_BxM = jnp.broadcast_to(jnp.array(target), (2, 2))
    module = models.build_encoder(encoder.settings)

    @jax.jit
    def expected(params, predictor_params):
        z = module.apply({"params": params}, pixels.normalise(clips), jnp.asarray(context), all_levels=True)
        return predictor.apply({"params": predictor_params}, z, jnp.asarray(context), target_BxM, grid=(2, 2, 2))[0]

    found = encoder.predict(clips, context, target)
    assert found.shape == (2, 2, 32)
    np.testing.assert_allclose(found, expected(encoder.params, encoder.predictor_params), atol=1e-5)


@pytest.mark.parametrize(
    ("context", "target", "message"),
    [
        ([0, 8], [1], r"context has positions from 0 to 8; a grid of 2×2×2 tokens has 0 to 7"),
        ([0], [-1], r"target has positions from -1 to -1"),
        (np.zeros((1, 1, 1), int), [1], r"context is int64 \[1, 1, 1\]; expected positions"),
        ([0], [], r"target is float64 \[0\]; expected positions"),
    ],
)
def test_positions_outside_the_grid_raise(encoder, context, target, message):
    with pytest.raises(ValueError, match=message):
        encoder.predict(random_clips(1), context, target)


def test_predict_without_a_predictor_raises():
    with pytest.raises(ValueError, match=r"predict needs a predictor, which runs/x does not have"):
        build(LEVELS, None, source="runs/x").predict(random_clips(1), [0], [1])


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "there are no clips"),
        (np.zeros((0, 4, 16, 16, 3), np.uint8), "there are no clips"),
        ([np.zeros((4, 16, 16, 3), np.uint8), np.zeros((4, 24, 16, 3), np.uint8)], "encode them separately"),
        (["a.mp4", "b.png"], r"b\.png is an image and a\.mp4 a video; encode them separately"),
        (np.zeros((3, 16, 17, 3), np.uint8), r"the nearest that do have 4 frames, 16×16 pixels"),
    ],
)
def test_what_is_no_clip_raises(encoder, clips, message):
    with pytest.raises(ValueError, match=message):
        encoder(clips)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((4, 8, 8, 1), np.uint8)]
)
def test_arrays_of_another_type_or_shape_raise(array):
    """They do not reach the check in tests, which check annotations."""
    shape = ", ".join(map(str, array.shape))
    message = (
        rf"clips are {array.dtype} \[{shape}\]; expected uint8 \(0 to 255\) \[frames, height, width, 3\] or \[clips"
    )
    with pytest.raises(ValueError, match=message):
        clip_reading._check(array, (4, 5))


def test_a_damaged_file_raises_with_its_name(encoder, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for path in (tmp_path / "broken.mp4", tmp_path / "none.mp4"):
        with pytest.raises(DecodeError, match=path.name):
            encoder([path] * 3)


def test_unknown_attribute_of_the_package_raises():
    with pytest.raises(AttributeError, match="no attribute 'encoder'"):
        jepa_jax.encoder  # noqa: B018
