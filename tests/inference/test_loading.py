"""`jepa_jax.load` and `jepa_jax.save`: every kind of reference, and round trips."""

import dataclasses
import json
import pathlib
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import torch_files
from tiny_encoder import CLIP, TILED, build, random_clips

import jepa_jax
from jepa_jax import weights
from jepa_jax.checkpoints import reader
from jepa_jax.preprocessing import VJEPA2, Preprocessing
from jepa_jax.settings import ConfigError
from jepa_jax.weights import WeightsError, architecture, references

GREY = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.2, 0.3, 0.4))
NAME = "facebook/vjepa2-vitl-fpc64-256"


def assert_same(one, other):
    """The same parameters, settings and features, bit for bit."""
    assert jax.tree.structure(one.params) == jax.tree.structure(other.params)
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    jax.tree.map(np.testing.assert_array_equal, one.predictor_params, other.predictor_params)
    for field in ("settings", "predictor_settings", "clip", "dtype"):
        assert getattr(one, field) == getattr(other, field), field
    for side in (16, 384):
        assert one.preprocessing.resized(side) == other.preprocessing.resized(side)
    clips = random_clips(2)
    np.testing.assert_array_equal(one(clips).by_level, other(clips).by_level)
    np.testing.assert_array_equal(one.predict(clips, [0, 3], [1, 2]), other.predict(clips, [0, 3], [1, 2]))


@pytest.mark.slow
def test_a_training_run_loads_and_comes_back_bit_for_bit(run, tmp_path):
    encoder = jepa_jax.load(run)
    assert (encoder.clip, encoder.dtype, encoder.source) == (CLIP, "bfloat16", str(run))
    checkpoint = reader.read_encoder(run, predictor=True)
    jax.tree.map(np.testing.assert_array_equal, encoder.params, checkpoint.params)
    jax.tree.map(np.testing.assert_array_equal, encoder.predictor_params, checkpoint.predictor_params)
    assert jepa_jax.save(encoder, tmp_path / "export", format="vjepa2.1") == {}
    assert_same(encoder, jepa_jax.load(tmp_path / "export"))
    before, after = (np.asarray(jax.tree.leaves(jepa_jax.load(f"{run}:{step}").params)[0]) for step in (3, 7))
    np.testing.assert_allclose(before - after, 0.04, atol=1e-6)


@pytest.mark.slow
def test_an_untrained_encoder_has_no_predictor(run):
    encoder = jepa_jax.load(f"random:{run}")
    with pytest.raises(ValueError, match=r"predict needs a predictor, which .* does not have"):
        encoder.predict(random_clips(1), [0], [1])


@pytest.mark.parametrize("preprocessing", [VJEPA2, pytest.param(GREY, marks=pytest.mark.slow)])
def test_weights_of_transformers_come_back_bit_for_bit(tmp_path, preprocessing):
    encoder = build(TILED, preprocessing=preprocessing)
    first = jepa_jax.load(saved(encoder, tmp_path / "first"))
    # What transformers has no place for is folded into biases once.
    np.testing.assert_allclose(first(random_clips(1)).tokens, encoder(random_clips(1)).tokens, atol=1e-5)
    second = jepa_jax.load(saved(first, tmp_path / "second") + "/model.safetensors")
    assert_same(first, second)
    assert first.preprocessing.mean == preprocessing.mean
    assert first.preprocessing.std == preprocessing.std


def saved(encoder, folder):
    jepa_jax.save(encoder, folder)
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "format", "message"),
    [
        (
            {},
            "transformers",
            r"the encoder has 2 levels; expected 1\n  rotary positions are interleaved; expected tiled",
        ),
        ({"settings": TILED}, "vjepa2.1", "rotary positions are tiled; expected interleaved"),
        ({"settings": TILED, "predictor_settings": None, "predictor_params": None}, "transformers", "no predictor"),
        ({"clip": dataclasses.replace(CLIP, size=(16, 24))}, "vjepa2.1", "clips are 16×24; expected square ones"),
    ],
)
def test_what_a_format_cannot_hold_is_an_error(encoder, tmp_path, changes, format, message):
    with pytest.raises(WeightsError, match=message):
        jepa_jax.save(dataclasses.replace(encoder, **changes), tmp_path / "x", format)
    assert not (tmp_path / "x").exists()


def test_a_file_of_torch_save_has_v_jepa_2s_evaluation(tmp_path, monkeypatch):
    monkeypatch.setitem(architecture.HEADS, 12, 2)
    monkeypatch.setitem(architecture.PREDICTOR_HEADS, 12, 2)
    of_encoder, of_predictor = (torch_files.numbers(part) for part in torch_files.vjepa2(2, 12, 48))
    for name, side in (("vitl", 256), ("vitg-384", 384), ("mine", 256)):
        path = torch_files.write_torch(
            tmp_path / f"{name}.pt", {"target_encoder": of_encoder, "predictor": of_predictor, "epoch": 1}
        )
        encoder = jepa_jax.load(path)
        assert (encoder.clip.frames, encoder.clip.size, encoder.dtype) == (64, side, "float32")
        assert encoder.preprocessing == VJEPA2
    expected = weights.read(path, heads=2, predictor_heads=2).encoder_params
    jax.tree.map(np.testing.assert_array_equal, encoder.params, expected)
    assert encoder(np.zeros((2, 32, 32, 3), np.uint8)).grid == (1, 2, 2)


@pytest.fixture
def fake_hub(monkeypatch, tmp_path):
    """A huggingface_hub that has one model, in a folder."""
    asked = []

    class MissingError(OSError):
        pass

    class GatedError(MissingError):
        pass

    class OfflineError(OSError):
        pass

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        if name != NAME:
            raise {"some/gated": GatedError, "some/offline": OfflineError}.get(name, MissingError)(name)
        return str(tmp_path / "snapshot")

    errors = types.SimpleNamespace(
        RepositoryNotFoundError=MissingError,
        GatedRepoError=GatedError,
        LocalEntryNotFoundError=OfflineError,
        HfHubHTTPError=OfflineError,
        HFValidationError=ValueError,
    )
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download, module.errors = snapshot_download, errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.chdir(tmp_path)
    return asked


def test_a_name_is_downloaded_from_the_hub(fake_hub, tmp_path):
    jepa_jax.save(build(TILED), tmp_path / "snapshot")
    (tmp_path / "snapshot" / "preprocessor_config.json").rename(
        tmp_path / "snapshot" / "video_preprocessor_config.json"
    )
    encoder = jepa_jax.load(NAME)
    assert (encoder.source, encoder.settings) == (NAME, TILED)
    assert fake_hub == [
        (NAME, ["config.json", "model.safetensors", "preprocessor_config.json", "video_preprocessor_config.json"])
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "some/model",
            "There is no folder some/model here, so it is read as a name on the Hugging Face hub, which has no",
        ),
        ("some/gated", r"needs its owner's permission: ask at https://huggingface\.co/some/gated"),
        ("some/offline", "which cannot be reached, and some/offline is not in its cache"),
    ],
)
def test_what_the_hub_does_not_give_is_an_error(fake_hub, name, message):
    with pytest.raises(WeightsError, match=message):
        jepa_jax.load(name)


def test_without_huggingface_hub_the_error_names_the_extra(fake_hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'jepa_jax\[hub\]'"):
        jepa_jax.load(NAME)


def test_a_missing_run_beside_others_is_not_a_name_on_the_hub(fake_hub, tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(ConfigError, match="runs/mine does not exist"):
        jepa_jax.load("runs/mine")
    assert not fake_hub


def test_a_folder_of_neither_kind_and_a_missing_file_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="not the folder of a training run"):
        jepa_jax.load(tmp_path)
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"there is no file of weights .*{name}"):
            jepa_jax.load(tmp_path / name)
    with pytest.raises(ConfigError, match=r"The file of weights is gs://bucket/vitl\.pt; expected a path on this"):
        jepa_jax.load("gs://bucket/vitl.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_resize": False}, "do_resize is False; only true is supported"),
        ({"image_mean": [0.5]}, "no usable size.shortest_edge, crop_size, image_mean or image_std"),
        ({"size": {"height": 3}}, "no usable size.shortest_edge"),
        ({"size": {"shortest_edge": 8}}, "crop_size 16, shortest_edge 8"),
        ({"rescale_factor": 1}, r"rescale_factor is 1\.0"),
    ],
)
def test_preprocessing_that_is_not_supported_is_an_error(tmp_path, changes, message):
    folder = pathlib.Path(saved(build(TILED), tmp_path / "x"))
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(WeightsError, match=message):
        jepa_jax.load(folder)


def test_the_sha256_of_weights_is_that_of_the_file(tmp_path):
    folder = pathlib.Path(saved(build(TILED), tmp_path / "x"))
    copy = shutil.copy(folder / "model.safetensors", tmp_path / "copy.safetensors")
    assert references.sha256(folder) == references.sha256(copy)
