import csv
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import models
from jepa_jax.config import ClipConfig, Config, EncoderConfig, SourceConfig
from jepa_jax.data import EvaluationSet, TooManySkippedError
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.features import cache as caching
from jepa_jax.evaluation.features import extractor, feature_set, storage
from jepa_jax.evaluation.features import rows as feature_rows
from jepa_jax.evaluation.features.cache import Cache
from jepa_jax.evaluation.features.rows import UncachedRows
from jepa_jax.evaluation.frozen_encoder import FrozenEncoder
from jepa_jax.models import batch_sharding, pixels

ENCODER = EncoderConfig(size="16x2x2", patch=4, levels=2)
CLIP = ClipConfig(frames=4, size=8)  # 8 tokens, 2 time steps
EVERY = ("mean", "frames", "all")


def open_set(folder, **settings):
    skip = settings.pop("max_skip_fraction", 0.0)
    return EvaluationSet(
        SourceConfig(kind="images", path=str(folder / "train"), **settings), clip=CLIP, max_skip_fraction=skip
    )


def frozen(params):
    return FrozenEncoder(Config(encoder=ENCODER), params, "ema", "runs/a", 3)


@pytest.fixture(scope="module")
def params():
    init = jax.jit(models.build_encoder(ENCODER).init)
    return init(jax.random.key(0), jnp.zeros((1, 4, 8, 8, 3)))["params"]


@pytest.fixture(scope="module")
def encode(params):
    return extractor.of_encoder(frozen(params), "float32")


@pytest.fixture
def copied(pictures, tmp_path):
    """A copy of the images that tests may change."""
    return shutil.copytree(pictures, tmp_path / "pictures")


def extract(encode, clips, folder, kinds=EVERY, *, batch_size=8, **cache):
    return feature_set.extract({"one": encode}, clips, kinds, Cache(folder / "cache", **cache), batch_size=batch_size)[
        "one"
    ]


def assert_same(found, expected, kinds=EVERY):
    for kind in kinds:
        np.testing.assert_array_equal(found.tokens[kind][:], expected.tokens[kind][:])
    np.testing.assert_array_equal(found.labels["class"], expected.labels["class"])
    np.testing.assert_array_equal(found.items, expected.items)


@pytest.fixture
def decoded(monkeypatch):
    """The rows decoded since the fixture was created, by batch."""
    rows, batches = [], EvaluationSet.batches

    def watched(self, *arguments):
        for batch in batches(self, *arguments):
            rows.append(np.unique(batch["row"]).tolist())
            yield batch

    monkeypatch.setattr(EvaluationSet, "batches", watched)
    return rows


def test_features_are_the_encoder_output_and_its_means(params, encode, pictures, tmp_path):
    clips = open_set(pictures)
    kinds = (*EVERY, "mean_levels", "frames_levels", "all_level_1", "mean_level_2", "all_stacked_levels")
    found = extract(encode, clips, tmp_path, kinds)
    video = next(clips.batches(20))["video"]
    levels = models.build_encoder(ENCODER).apply({"params": params}, pixels.normalise(video), all_levels=True)
    expected = np.float32(levels)[..., -16:]
    assert {kind: found.tokens[kind].shape for kind in kinds} == {
        "mean": (20, 16),
        "frames": (20, 2, 16),
        "all": (20, 8, 16),
        "mean_levels": (20, 32),
        "frames_levels": (20, 2, 32),
        "all_level_1": (20, 8, 16),
        "mean_level_2": (20, 16),
        "all_stacked_levels": (20, 16, 16),
    }
    assert {found.tokens[kind].dtype for kind in kinds} == {np.dtype(np.float16)}
    near = {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(found.tokens["all"], expected, **near)
    np.testing.assert_allclose(found.tokens["mean"], expected.mean(1), **near)
    np.testing.assert_allclose(found.tokens["frames"][:, 1], expected[:, 4:].mean(1), **near)
    np.testing.assert_allclose(found.tokens["mean_levels"], np.float32(levels).mean(1), **near)
    np.testing.assert_allclose(found.tokens["frames_levels"][:, 0], np.float32(levels)[:, :4].mean(1), **near)
    np.testing.assert_allclose(found.tokens["all_level_1"], np.float32(levels)[..., :16], **near)
    np.testing.assert_array_equal(found.tokens["mean_level_2"], found.tokens["mean"])
    stacked = np.concatenate([found.tokens["all_level_1"], found.tokens["all"]], axis=1)
    np.testing.assert_array_equal(found.tokens["all_stacked_levels"], stacked)
    assert found.labels["class"].tolist() == [0] * 10 + [1] * 10
    assert found.items.tolist() == list(range(20))


def test_features_have_an_index_of_names(encode, pictures, tmp_path):
    extract(encode, open_set(pictures), tmp_path, ["mean"])
    (index,) = tmp_path.glob("cache/mean-*/clips.csv")
    with index.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"clip": f"{name}/{i}.png", "view": "0", "class": name} for name in ("blue", "red") for i in range(10)
    ]


@pytest.mark.parametrize("size", [1, 20, 64])
def test_features_do_not_depend_on_batch_size_or_padding(encode, pictures, tmp_path, size):
    found = extract(encode, open_set(pictures), tmp_path / "a", batch_size=size)
    expected = extract(encode, open_set(pictures), tmp_path / "b")
    for kind in EVERY:
        np.testing.assert_allclose(found.tokens[kind], expected.tokens[kind], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.labels["class"], expected.labels["class"])


def test_features_of_a_single_clip(encode, pictures, tmp_path):
    found = extract(encode, open_set(pictures, include="red/3"), tmp_path)
    assert found.tokens["mean"].shape == (1, 16)
    assert found.items.tolist() == [0]


def test_other_parameters_and_batches_do_not_recompile(params, encode, pictures, tmp_path):
    extract(encode, open_set(pictures), tmp_path / "a")
    other = extractor.of_encoder(frozen(jax.tree.map(lambda x: x + 0.1, params)), "float32")
    with jax.no_tracing():  # raises if anything is traced again, such as for the padded last batch
        encoder = extractor.Device().bind(other, tuple((kind, "float16") for kind in EVERY))
        for batch in open_set(pictures).batches(8):
            encoder(batch)


def test_batch_size_decreases_with_the_number_of_tokens():
    """The memory of attention, clips × tokens², is limited. An explicit batch size is used as given."""
    device = extractor.Device()
    sizes = {tokens: device.batch_size(0, 10_000, tokens) for tokens in (1, 64, 196, 392, 1568, 6272)}
    assert sizes[1] == sizes[64] == 4 * sizes[196]
    assert sizes[196] == 8 * sizes[1568] == 8 * sizes[6272] == 8 * device.count
    assert all(size * tokens**2 <= sizes[196] * 196**2 or size == device.count for tokens, size in sizes.items())
    assert device.batch_size(5 * device.count, 10_000, 6272) == 5 * device.count


def test_batch_is_split_over_all_devices(encode, pictures):
    device = extractor.Device()
    features = device.bind(encode, (("mean", "float16"),))(
        next(open_set(pictures).batches(device.batch_size(9, 20, 1)))
    )
    assert len(features["mean"]["features"].sharding.device_set) == jax.device_count() == 8
    assert features["mean"]["features"].shape[0] == 16


def test_attention_of_features_is_resolved_and_part_of_their_identity(params, monkeypatch, capsys):
    """On CPUs, features of auto and of xla share a cache."""

    def identity(found):
        return extractor.of_encoder(frozen_encoder.resolve_attention(found, CLIP, "float32"), "float32").identity

    xla = Config(encoder=dataclasses.replace(ENCODER, attention="xla"))
    assert identity(frozen(params)) == identity(dataclasses.replace(frozen(params), config=xla))
    assert not capsys.readouterr().err
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    for _ in range(2):
        assert identity(frozen(params))["encoder"]["attention"] == "fused"
    assert capsys.readouterr().err.count("Attention: fused (splash attention, within ") == 1


def test_attention_kernel_receives_the_clips_of_one_device(params, pictures, monkeypatch):
    """XLA cannot partition a kernel, so it must be called with the clips of one device."""
    seen = set()

    def kernel(q, k, v):
        seen.add(q.shape[0])
        return jax.nn.dot_product_attention(q, k, v)

    monkeypatch.setattr(
        "jepa_jax.models.layers.attend", lambda q, k, v, kind: batch_sharding.per_device(kernel)(q, k, v)
    )
    unlike_others = dataclasses.replace(ENCODER, scan=False)  # programs compiled before do not call the kernel
    encode = extractor.of_encoder(dataclasses.replace(frozen(params), config=Config(encoder=unlike_others)), "float32")
    device = extractor.Device()
    device.bind(encode, (("mean", "float16"),))(next(open_set(pictures).batches(16)))
    assert seen == {16 // jax.device_count()}


def test_pooling_is_in_float32(params, pictures, tmp_path):
    half = extractor.of_encoder(frozen(params), "bfloat16")
    found = extract(half, open_set(pictures), tmp_path)
    exact = np.float32(found.tokens["all"][:]).mean(1)  # float16 represents these bfloat16 values exactly
    np.testing.assert_allclose(found.tokens["mean"], exact, rtol=1e-3, atol=1e-4)


def test_complete_cache_is_read_without_decoding(encode, pictures, tmp_path, decoded):
    first = extract(encode, open_set(pictures), tmp_path)
    assert len(decoded) == 3
    assert_same(extract(encode, open_set(pictures), tmp_path), first)
    assert len(decoded) == 3
    # For another kind of features, only that kind is computed.
    extract(encode, open_set(pictures), tmp_path, ("mean_levels",))
    assert len(decoded) == 6


def stop_after(count, monkeypatch, then=None):
    """Calls `then` after `count` batches; by default it raises KeyboardInterrupt."""
    batches = EvaluationSet.batches

    def stopping(self, *arguments):
        for number, batch in enumerate(batches(self, *arguments)):
            if number == count:
                (then or interrupt)()
            yield batch

    monkeypatch.setattr(EvaluationSet, "batches", stopping)


def interrupt():
    raise KeyboardInterrupt


def test_interrupted_extraction_resumes(encode, pictures, tmp_path, monkeypatch, decoded):
    expected = extract(encode, open_set(pictures), tmp_path / "whole")
    decoded.clear()
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            extract(encode, open_set(pictures), tmp_path)
    decoded.clear()
    assert_same(extract(encode, open_set(pictures), tmp_path), expected)
    # Two batches had been decoded, and one of them stored.
    assert decoded == [list(range(8, 16)), list(range(16, 20))]


def test_killed_extraction_resumes_with_another_batch_size(encode, pictures, tmp_path, monkeypatch, decoded):
    """A kill leaves the current files and the lock files of a process that no longer runs."""
    monkeypatch.setattr(feature_set, "COMMIT_EVERY", 0.0)

    def copy_as_if_killed():
        shutil.copytree(tmp_path / "cache", tmp_path / "killed" / "cache")
        locks = list((tmp_path / "killed" / "cache").glob(f"*/{caching.LOCK}"))
        assert len(locks) == len(EVERY)
        for lock in locks:
            lock.write_text(json.dumps(json.loads(lock.read_text()) | {"started": "1"}))

    with monkeypatch.context() as patch:
        stop_after(2, patch, copy_as_if_killed)
        expected = extract(encode, open_set(pictures), tmp_path)
    decoded.clear()
    found = extract(encode, open_set(pictures), tmp_path / "killed", batch_size=16)
    assert decoded == [list(range(8, 20))]
    np.testing.assert_allclose(found.tokens["all"], expected.tokens["all"], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.items, expected.items)


def test_extraction_killed_after_the_last_clip_decodes_nothing(encode, pictures, tmp_path, decoded):
    expected = extract(encode, open_set(pictures), tmp_path)
    for file in tmp_path.glob("cache/*/progress.json"):
        file.write_text(file.read_text().replace('"complete": true', '"complete": false'))
    decoded.clear()
    assert_same(extract(encode, open_set(pictures), tmp_path), expected)
    assert not decoded


def test_new_version_makes_all_features_stale(encode, pictures, tmp_path, decoded, monkeypatch):
    extract(encode, open_set(pictures), tmp_path)
    decoded.clear()
    monkeypatch.setattr(caching, "VERSION", caching.VERSION + 1)
    extract(encode, open_set(pictures), tmp_path)
    assert len(decoded) == 3


def test_changed_checkpoint_with_the_same_name_is_detected(params, encode, pictures, tmp_path, capsys):
    before = extract(encode, open_set(pictures), tmp_path)
    changed = extractor.of_encoder(frozen(jax.tree.map(lambda x: x * 1.5, params)), "float32")
    assert changed.origin == encode.origin
    after = extract(changed, open_set(pictures), tmp_path)
    assert np.abs(np.float32(after.tokens["mean"]) - before.tokens["mean"]).max() > 0.01
    assert "runs/a:3 (ema) has changed; deleting its stale features" in capsys.readouterr().err
    assert len(list((tmp_path / "cache").iterdir())) == len(EVERY)


def test_smallest_change_of_a_parameter_changes_the_fingerprint(params):
    leaves, structure = jax.tree.flatten(params)
    nudged = [np.array(leaf) for leaf in leaves]
    nudged[-1].flat[-1] = np.nextafter(nudged[-1].flat[-1], 2)
    assert frozen(params).fingerprint == frozen(jax.tree.map(jnp.copy, params)).fingerprint
    assert frozen(params).fingerprint != frozen(jax.tree.unflatten(structure, nudged)).fingerprint


def test_changed_file_with_the_same_name_is_detected(encode, copied, tmp_path):
    before = extract(encode, open_set(copied), tmp_path)
    shutil.copy(copied / "train" / "red" / "3.png", copied / "train" / "blue" / "3.png")
    after = extract(encode, open_set(copied), tmp_path)
    changed = (np.float32(after.tokens["mean"]) != before.tokens["mean"]).any(1)
    assert np.flatnonzero(changed).tolist() == [3]


def test_moved_folder_counts_as_the_same_data(encode, copied, tmp_path, decoded):
    extract(encode, open_set(copied), tmp_path)
    decoded.clear()
    extract(encode, open_set(copied.rename(tmp_path / "elsewhere")), tmp_path)
    assert not decoded


@pytest.mark.parametrize(
    "change", [{"clip": ClipConfig(frames=4, size=16)}, {"classes": {"class": ("blue", "x", "red")}}]
)
def test_other_preprocessing_or_labels_count_as_other_data(pictures, change):
    source = SourceConfig(kind="images", path=str(pictures / "train"))
    assert EvaluationSet(source, **{"clip": CLIP, **change}).identity != EvaluationSet(source, clip=CLIP).identity


def flip_time(video, row):
    del row
    return video[:, ::-1]


def brighten(video, row):
    return video + row[:, None, None, None, None]


def test_clips_can_be_transformed_before_encoding(encode, pictures, tmp_path):
    """The clips are still images: reversal does not change them, adding the row number does."""
    encoders = {"plain": encode, "reversed": encode.after("reversed", flip_time), "b": encode.after("b", brighten)}
    found = feature_set.extract(encoders, open_set(pictures), ("mean",), Cache(tmp_path), batch_size=8)
    plain, other = (np.float32(found[name].tokens["mean"]) for name in ("plain", "b"))
    np.testing.assert_array_equal(found["reversed"].tokens["mean"], plain)
    assert (np.abs(other - plain).max(1) > 1e-3).tolist() == [False] + [True] * 19
    assert len(list(tmp_path.iterdir())) == 3


def test_undecodable_clips_are_skipped_and_recorded(encode, copied, tmp_path):
    (copied / "train" / "blue" / "2.png").write_bytes(b"nonsense")
    for _ in range(2):  # decoded, and from the cache
        clips = open_set(copied, max_skip_fraction=0.1)
        found = extract(encode, clips, tmp_path)
        assert found.items.tolist() == [0, 1, *range(3, 20)]
        assert len(found) == len(found.tokens["all"]) == len(found.labels["class"]) == 19
        assert [skip.item for skip in clips.skipped] == [2]
    with pytest.raises(TooManySkippedError):
        extract(encode, open_set(copied), tmp_path)


@pytest.mark.parametrize("change", [lambda x: x * jnp.nan, lambda x: x * 1e6])
def test_features_outside_the_range_of_float16_raise(params, pictures, tmp_path, change):
    broken = extractor.of_encoder(frozen(jax.tree.map(change, params)), "float32")
    with pytest.raises(FloatingPointError, match=r"on the clips clips is not finite in float16 \(clip 0\)"):
        extract(broken, open_set(pictures), tmp_path)


def test_features_over_the_memory_limit_stay_on_disk(encode, pictures, tmp_path):
    kept = extract(encode, open_set(pictures), tmp_path)
    size = kept.tokens["all"].nbytes
    on_disk = extract(encode, open_set(pictures), tmp_path, memory_limit=size - 1)
    assert [type(found.tokens["all"]) for found in (kept, on_disk)] == [np.ndarray, np.memmap]
    assert_same(on_disk, kept)


def test_int8_is_accurate_and_equal_on_disk_and_in_memory(encode, pictures, tmp_path):
    exact = extract(encode, open_set(pictures), tmp_path)
    coded = extract(encode, open_set(pictures), tmp_path, storage_dtype="int8")
    on_disk = extract(encode, open_set(pictures), tmp_path, storage_dtype="int8", memory_limit=0)
    assert isinstance(on_disk.tokens["all"], storage.Quantized)
    assert_same(on_disk, coded)
    assert_same(coded, exact, ("mean", "frames"))
    span = np.ptp(np.float32(exact.tokens["all"]), axis=1, keepdims=True)
    assert (np.abs(np.float32(coded.tokens["all"]) - exact.tokens["all"]) <= span / 508 + 2e-3).all()


def test_on_the_fly_features_match_the_cache_in_any_order(encode, pictures, tmp_path):
    kept = extract(encode, open_set(pictures), tmp_path / "kept").tokens["all"]
    rows = extract(encode, open_set(pictures), tmp_path, keep="on_the_fly").tokens["all"]
    assert isinstance(rows, UncachedRows)
    assert (rows.shape, rows.dtype, rows.nbytes, len(rows)) == (kept.shape, kept.dtype, kept.nbytes, 20)
    assert not list((tmp_path / "cache").glob("all-*"))
    index = np.random.default_rng(0).permutation(20)
    wanted = [index[:3], index[3:14], index[[2, 2]], index[14:]]
    for read, expected in zip(feature_rows.read(rows, wanted), wanted, strict=True):
        np.testing.assert_allclose(read, kept[expected], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(rows[2:5], kept[2:5], rtol=1e-3, atol=1e-4)


def test_on_the_fly_features_skip_undecodable_clips(encode, copied, tmp_path):
    (copied / "train" / "blue" / "2.png").write_bytes(b"nonsense")
    clips = open_set(copied, max_skip_fraction=0.1)
    kept = extract(encode, clips, tmp_path / "kept")
    rows = extract(encode, clips, tmp_path, keep="on_the_fly").tokens["all"]
    assert rows.shape == (19, 8, 16)
    np.testing.assert_allclose(rows[:], kept.tokens["all"], rtol=1e-3, atol=1e-4)
    (copied / "train" / "red" / "0.png").write_bytes(b"nonsense")
    with pytest.raises(OSError, match="clips 10 of the set could be decoded before"):
        rows[np.array([9])]


def test_free_disk_space_decides_whether_features_are_cached(encode, pictures, tmp_path, monkeypatch, capsys):
    room = 20 * 8 * 16 * 2
    monkeypatch.setattr(Cache, "free_bytes", lambda self: feature_set.SPARE + room)
    kept = extract(encode, open_set(pictures), tmp_path / "a", ("all",))
    assert isinstance(kept.tokens["all"], np.ndarray)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(Cache, "free_bytes", lambda self: feature_set.SPARE + room - 1)
    uncached = extract(encode, open_set(pictures), tmp_path / "b", ("all",))
    assert isinstance(uncached.tokens["all"], UncachedRows)
    assert "clips are decoded and encoded again in each epoch of a probe" in capsys.readouterr().out
    with pytest.raises(OSError, match=r"take .* GiB, and .* has room for .*--cache"):
        extract(encode, open_set(pictures), tmp_path / "b", ("all",), keep="cache")
    # Features that are already cached need no space.
    kept = extract(encode, open_set(pictures), tmp_path / "a", ("all",))
    assert isinstance(kept.tokens["all"], np.ndarray)
    monkeypatch.setattr(Cache, "free_bytes", lambda self: 0)
    with pytest.raises(OSError, match=r"no room for .* GiB of pooled features"):
        extract(encode, open_set(pictures), tmp_path / "c", ("all",))


def test_channel_statistics():
    array = np.random.default_rng(0).normal(3, 2, size=(10, 5, 4)).astype(np.float32)
    array[..., 2] = 7.1  # constant, so its deviation must not be a divisor
    mean, deviation = feature_rows.channel_statistics(array)
    expected = array.reshape(-1, 4).std(0)
    expected[2] = 1
    np.testing.assert_allclose(mean, array.reshape(-1, 4).mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, expected, rtol=1e-5)


def test_channel_statistics_of_many_blocks(monkeypatch):
    array = np.random.default_rng(0).normal(300, 2, size=(11, 5, 4)).astype(np.float32)
    blocks = [array[:4], array[4:8], array[8:]]
    monkeypatch.setattr(feature_rows, "chunks", lambda rows: iter(blocks))
    mean, deviation = feature_rows.channel_statistics(array)
    np.testing.assert_allclose(mean, array.reshape(-1, 4).mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, array.reshape(-1, 4).astype(np.float64).std(0), rtol=1e-5)


def test_chunks_cover_every_row_once():
    array = np.arange(30).reshape(10, 3)
    parts = list(feature_rows.chunks(array, limit=4 * array[:1].nbytes))
    assert [len(part) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(parts), array)
