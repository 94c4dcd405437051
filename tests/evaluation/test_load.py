"""`jepa_jax.load(...).encode(...)`: features of arrays and files in Python."""

import av
import numpy as np
import pytest
from PIL import Image

import jepa_jax
from jepa_jax.data import DecodeError


@pytest.fixture(scope="module")
def encoder():
    return jepa_jax.load("random:quickstart")  # width 128, 4 levels, clips of 8×32×32 in 4×4×4 tokens


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 32, 32, 3), np.uint8)


@pytest.mark.slow
def test_mean_and_frames_are_means_of_all_tokens(encoder, clips):
    every = encoder.encode(clips, tokens="all")
    assert every.shape == (5, 64, 128)
    assert every.dtype == np.float32
    np.testing.assert_allclose(encoder.encode(clips), every.mean(1), atol=1e-5)
    frames = every.reshape(5, 4, 16, 128).mean(2)
    np.testing.assert_allclose(encoder.encode(clips, tokens="frames"), frames, atol=1e-5)


def test_features_do_not_depend_on_the_batch(encoder, clips):
    together = encoder.encode(clips)
    for batch_size in (1, 2):
        np.testing.assert_allclose(encoder.encode(clips, batch_size=batch_size), together, atol=1e-5)


@pytest.mark.slow
def test_levels_are_parts_of_all_levels(encoder, clips):
    every = encoder.encode(clips, level="all")
    assert every.shape == (5, 512)
    for number in (1, 2, 3, 4):
        part = every[:, 128 * (number - 1) : 128 * number]
        np.testing.assert_allclose(encoder.encode(clips, level=number), part, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(clips), every[:, -128:], atol=1e-5)


def test_file_is_encoded_like_its_frames(encoder, tmp_path):
    path = tmp_path / "clip.avi"
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)  # lossless
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        frames = [np.roll(picture, shift, axis=1) for shift in range(8)]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    expected = encoder.encode(np.stack(frames)[None])
    np.testing.assert_allclose(encoder.encode([path, str(path)]), np.repeat(expected, 2, axis=0), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(path), expected, atol=1e-5)


def test_image_is_encoded_like_one_frame(encoder, tmp_path):
    picture = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    np.testing.assert_allclose(encoder.encode(tmp_path / "picture.png"), encoder.encode(picture[None, None]), atol=1e-5)


def test_clips_may_have_another_size_than_in_training(encoder):
    longer = np.zeros((1, 16, 48, 64, 3), np.uint8)
    assert encoder.encode(longer, tokens="all").shape == (1, 8 * 6 * 8, 128)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": "man"}, "tokens is 'man'. Did you mean 'mean'"),
        ({"level": 5}, "level is 5; expected 'last', 'all' or a number from 1 to 4"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
    ],
)
def test_invalid_arguments_raise(encoder, clips, settings, message):
    with pytest.raises(ValueError, match=message):
        encoder.encode(clips, **settings)


def test_missing_or_damaged_clips_raise(encoder, clips, tmp_path):
    with pytest.raises(ValueError, match="there are no clips"):
        encoder.encode([])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError, match=r"broken\.mp4"):
        encoder.encode(tmp_path / "broken.mp4")


def test_unknown_attribute_of_the_package_raises():
    with pytest.raises(AttributeError, match="no attribute 'encoder'"):
        jepa_jax.encoder  # noqa: B018
