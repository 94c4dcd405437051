import functools
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jepa_jax import models, pixels
from jepa_jax.config import EncoderConfig
from jepa_jax.probing import features

ENCODER = EncoderConfig(size="16x2x2", patch=4, levels=2)
SHAPE = (2, 8, 8, 3)  # frames, height, width, colours: 4 tokens
CLIPS = np.random.default_rng(0).integers(256, size=(7, *SHAPE), dtype=np.uint8)


def batches(size, clips=CLIPS):
    """The clips in batches, the last one filled up, with their place as a label."""
    for first in range(0, len(clips), size):
        place = np.arange(first, first + size)
        index = np.minimum(place, len(clips) - 1)
        yield {"video": clips[index], "labels": {"place": index}, "item": index, "valid": place < len(clips)}


def extract(encode, *arguments):
    return features.extract({"one": encode}, *arguments)["one"]


@pytest.fixture(scope="module")
def params():
    return models.build_encoder(ENCODER).init(jax.random.key(0), jnp.zeros((1, *SHAPE)))["params"]


@pytest.fixture(scope="module")
def encode(params):
    return functools.partial(features.make_encode(ENCODER, "float32", ("mean", "all")), params)


def in_memory(tmp_path=pathlib.Path()):
    return features.Storage(2**30, tmp_path)


def test_features_are_the_plain_output_and_its_mean(params, encode):
    found = extract(encode, batches(3), len(CLIPS), in_memory(), "test")
    expected = models.build_encoder(ENCODER).apply({"params": params}, pixels.normalise(CLIPS))
    assert found.tokens["all"].shape == (7, 4, 16)
    np.testing.assert_allclose(found.tokens["all"], expected, atol=1e-5)
    np.testing.assert_allclose(found.tokens["mean"], expected.mean(1), atol=1e-5)
    np.testing.assert_array_equal(found.labels["place"], np.arange(7))
    assert len(found) == 7


@pytest.mark.parametrize("size", [1, 4, 7, 16])
def test_batch_size_and_filling_change_nothing(encode, size):
    found = extract(encode, batches(size), len(CLIPS), in_memory(), "test")
    expected = extract(encode, batches(3), len(CLIPS), in_memory(), "test")
    for kind in ("mean", "all"):
        np.testing.assert_allclose(found.tokens[kind], expected.tokens[kind], atol=1e-5)
    np.testing.assert_array_equal(found.labels["place"], np.arange(7))


def test_compiles_once(params):
    encode = functools.partial(features.make_encode(ENCODER, "float32", ("mean",)), params)
    encode(CLIPS[:3])
    with jax.no_tracing():  # raises if anything is traced again, as for the last, filled-up batch
        found = extract(encode, batches(3), len(CLIPS), in_memory(), "test")
    assert len(found) == len(CLIPS)


def test_fewer_clips_than_announced(encode):
    found = extract(encode, batches(3), 20, in_memory(), "test")
    assert len(found) == 7


def test_pooling_is_in_float32(params):
    half = functools.partial(features.make_encode(ENCODER, "bfloat16", ("mean", "all")), params)
    found = extract(half, batches(7), len(CLIPS), in_memory(), "test")
    assert found.tokens["all"].dtype == ml_dtypes.bfloat16
    assert found.tokens["mean"].dtype == np.float32
    np.testing.assert_allclose(found.tokens["mean"], found.tokens["all"].astype(np.float32).mean(1), atol=1e-6)


def test_all_tokens_go_to_disk_past_the_limit(encode, tmp_path):
    limit = 7 * 4 * 16 * 4
    on_disk = extract(encode, batches(3), 7, features.Storage(limit - 1, tmp_path), "test")
    memory = extract(encode, batches(3), 7, features.Storage(limit, tmp_path), "test")
    assert isinstance(on_disk.tokens["all"], np.memmap)
    assert not isinstance(memory.tokens["all"], np.memmap)
    assert not isinstance(on_disk.tokens["mean"], np.memmap)
    np.testing.assert_array_equal(on_disk.tokens["all"], memory.tokens["all"])
    assert not list(tmp_path.iterdir()), "the file must not outlive the process"


def test_a_full_disk_is_found_out_beforehand(tmp_path):
    with pytest.raises(OSError, match=r"take .* GiB, and .* has .* GiB left"):
        features.Storage(0, tmp_path).allocate("all", (10**9, 1568, 768), np.float32)


def test_cpu_takes_features_over_without_a_copy():
    array = features.Storage(2**30, pathlib.Path()).allocate("mean", (1000, 7), np.float32)
    array[:] = 1
    assert jax.device_put(array, jax.devices("cpu")[0]).unsafe_buffer_pointer() == array.ctypes.data


def test_features_that_are_not_finite_are_refused(params):
    broken = jax.tree.map(lambda x: x * jnp.nan, params)
    encode = functools.partial(features.make_encode(ENCODER, "float32", ("mean",)), broken)
    with pytest.raises(FloatingPointError, match="test clips is not finite"):
        extract(encode, batches(7), len(CLIPS), in_memory(), "test")


def test_an_empty_set_is_refused(encode):
    with pytest.raises(ValueError, match="the test set has no clips"):
        extract(encode, batches(7, CLIPS[:0]), 0, in_memory(), "test")


def test_channel_statistics(monkeypatch):
    array = np.random.default_rng(0).normal(3, 2, size=(10, 5, 4)).astype(np.float32)
    array[..., 2] = 7.1  # constant: not to be divided by
    mean, deviation = features.channel_statistics(array)
    expected = array.reshape(-1, 4).std(0)
    expected[2] = 1
    np.testing.assert_allclose(mean, array.reshape(-1, 4).mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, expected, rtol=1e-5)


def test_chunks_cover_every_row_once():
    array = np.arange(30).reshape(10, 3)
    parts = list(features.chunks(array, limit=4 * array[:1].nbytes))
    assert [len(part) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(parts), array)
