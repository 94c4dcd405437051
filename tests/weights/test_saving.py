"""What is saved is read again bit for bit; what a format cannot hold is an error."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch_files

from jepa_jax import models, weights
from jepa_jax.config import ClipConfig, EncoderConfig, PredictorConfig
from jepa_jax.weights import WeightsError, pretrained, tensors

CLIP = ClipConfig(frames=4, size=16)
LEVELS = EncoderConfig(size="16x6x2x40", patch=4, level_ends=(1, 4, 6))
TILED = EncoderConfig(size="16x3x2x45", patch=4, levels=1, rotary="tiled")


def random_like(tree, seed):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: draw.standard_normal(x.shape).astype(np.float32), tree)


def model(encoder, predictor):
    """Random parameters of encoder and predictor."""
    index = jnp.zeros((1, 2), jnp.int32)
    module = models.build_encoder(encoder)
    tokens = jnp.zeros((1, 2, module.size.width * encoder.levels))
    of_encoder = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *CLIP.shape)))
    of_predictor = jax.eval_shape(
        lambda key: models.build_predictor(predictor, encoder).init(key, tokens, index, index, grid=(2, 4, 4)),
        jax.random.key(0),
    )
    return random_like(of_encoder["params"], 0), random_like(of_predictor["params"], 1)


def without_modality(params):
    return params | {name: np.zeros_like(params[name]) for name in ("video_modality", "image_modality")}


@pytest.mark.parametrize("encoder", [LEVELS, dataclasses.replace(LEVELS, level_ends=(), levels=1)])
@pytest.mark.parametrize(
    "predictor",
    [PredictorConfig(size="12x2x2"), PredictorConfig(size="12x2x2", levels=1, output=20, mask_tokens=3)],
)
def test_all_parameters_of_the_vjepa2_1_format_come_back(tmp_path, encoder, predictor):
    of_encoder, of_predictor = model(encoder, predictor)
    left_out = weights.save(tmp_path, encoder, of_encoder, predictor, of_predictor, CLIP, format="vjepa2.1")
    assert left_out == {}
    found = weights.read(tmp_path)
    assert (found.encoder, found.predictor, found.clip, found.format) == (encoder, predictor, CLIP, "vjepa2.1")
    assert found.filled == found.ignored == {}
    jax.tree.map(np.testing.assert_array_equal, found.encoder_params, of_encoder)
    jax.tree.map(np.testing.assert_array_equal, found.predictor_params, of_predictor)


def test_an_encoder_alone_comes_back(tmp_path):
    of_encoder, _ = model(LEVELS, PredictorConfig(size="12x2x2"))
    weights.save(tmp_path / "new" / "folder", LEVELS, of_encoder, None, None, CLIP, format="vjepa2.1")
    found = weights.read(tmp_path / "new" / "folder" / "model.safetensors")
    assert found.predictor is found.predictor_params is None
    jax.tree.map(np.testing.assert_array_equal, found.encoder_params, of_encoder)


PREDICTOR = PredictorConfig(size="12x2x2", mask_tokens=10)


def test_parameters_of_the_transformers_format_come_back(tmp_path):
    of_encoder, of_predictor = map(without_modality, model(TILED, PREDICTOR))
    left_out = weights.save(tmp_path, TILED, of_encoder, PREDICTOR, of_predictor, CLIP)
    found = weights.read(tmp_path)
    assert (found.encoder, found.predictor, found.clip) == (TILED, PREDICTOR, CLIP)
    assert found.filled == left_out
    for name, kept, back in (
        ("encoder", of_encoder, found.encoder_params),
        ("predictor", of_predictor, found.predictor_params),
    ):
        for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
            dotted = "/".join(key.key for key in path)
            if f"{name}/{dotted}" not in left_out:
                np.testing.assert_array_equal(dict(jax.tree_util.tree_leaves_with_path(back))[path], leaf, dotted)


def test_modality_embeddings_are_added_where_they_act(tmp_path):
    """The outputs are the same, though transformers has no modality embeddings."""
    of_encoder, of_predictor = model(TILED, PREDICTOR)
    weights.save(tmp_path, TILED, of_encoder, PREDICTOR, of_predictor, CLIP)
    found = weights.read(tmp_path)
    encoder = models.build_encoder(TILED)
    clips = jax.random.normal(jax.random.key(0), (1, *CLIP.shape))
    encode = jax.jit(lambda params: encoder.apply({"params": params}, clips))
    np.testing.assert_allclose(encode(found.encoder_params), encode(of_encoder), atol=1e-4)
    predictor = models.build_predictor(PREDICTOR, TILED)
    z, index = jax.random.normal(jax.random.key(1), (1, 5, 16)), jnp.arange(9)[None]
    predict = jax.jit(
        lambda params: predictor.apply({"params": params}, z, index[:, :5], index[:, 5:], grid=(2, 4, 4), mask_token=7)[
            0
        ]
    )
    np.testing.assert_allclose(predict(found.predictor_params), predict(of_predictor), atol=1e-4)


def test_a_released_file_is_saved_as_it_was(tmp_path):
    """V-JEPA 2.1's PyTorch names and bytes, without the prefixes of training."""
    shapes = torch_files.vjepa2_1(12, 24, 96, 2)
    encoder, predictor = (torch_files.numbers(part, seed) for seed, part in enumerate(shapes))
    found = pretrained.of_state_dicts(
        "x", {"target_encoder": tensors.of_arrays(encoder)}, tensors.of_arrays(predictor), 12, 2
    )
    weights.save(
        tmp_path,
        found.encoder,
        found.encoder_params,
        found.predictor,
        found.predictor_params,
        ClipConfig(frames=64, size=384),
        format="vjepa2.1",
    )
    saved = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    expected = {
        f"{part}.{key.removeprefix('module.backbone.')}": array
        for part, arrays in (("encoder", encoder), ("predictor", predictor))
        for key, array in arrays.items()
    }
    assert saved.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(saved[key], array)


def test_the_preprocessor_is_v_jepa_2s(tmp_path):
    of_encoder, of_predictor = model(TILED, PREDICTOR)
    weights.save(tmp_path, TILED, of_encoder, PREDICTOR, of_predictor, ClipConfig(frames=64, size=384))
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert content["size"] == {"shortest_edge": 438}
    assert content["crop_size"] == {"height": 384, "width": 384}
    assert content["image_mean"] == [0.485, 0.456, 0.406]
    assert content["image_std"] == [0.229, 0.224, 0.225]


@pytest.mark.parametrize(
    ("encoder", "predictor", "format", "message"),
    [
        (LEVELS, PREDICTOR, "transformers", "the encoder has 3 levels; expected 1\n.*interleaved; expected tiled"),
        (TILED, None, "transformers", "there is no predictor"),
        (TILED, PredictorConfig(size="12x2x2", output=20), "transformers", "outputs of another width"),
        (TILED, PredictorConfig(size="12x2x2", rotary_scale="on"), "transformers", "has scaled positions"),
        (TILED, PREDICTOR, "vjepa2.1", "rotary positions are tiled; expected interleaved"),
        (
            EncoderConfig(size="16x48x2"),
            PREDICTOR,
            "vjepa2.1",
            r"levels end after blocks \(12, 24, 36, 48\); V-JEPA 2\.1 with 48 blocks has \(12, 24, 38, 48\)",
        ),
    ],
)
def test_what_a_format_cannot_hold_is_an_error(tmp_path, encoder, predictor, format, message):
    with pytest.raises(WeightsError, match=f"'{format}' cannot hold this model:\n  .*{message}"):
        weights.save(tmp_path, encoder, {}, predictor, predictor and {}, CLIP, format)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(WeightsError, match="exists and is not an empty folder"):
            weights.save(folder, TILED, {}, PREDICTOR, {}, CLIP)


@pytest.fixture
def saved(tmp_path):
    """A folder in the format of transformers."""
    of_encoder, of_predictor = model(TILED, PREDICTOR)
    weights.save(tmp_path, TILED, of_encoder, PREDICTOR, of_predictor, CLIP)
    return tmp_path


def change_config(folder, **settings):
    content = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "vit"}, "is of model_type 'vit'; expected 'vjepa2'"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05; only 1e-06 is supported"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu' is supported"),
        ({"num_attention_heads": 5}, "the width must be a positive even multiple of the heads"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"hidden_size": 32}, r"encoder\.layernorm\.weight is \[16\]; expected \[32\]"),
        ({"num_hidden_layers": 4}, r"encoder\.layer\.3\.norm1\.weight \[16\] is missing"),
        ({"num_hidden_layers": 2}, r"encoder\.layer\.2\.norm1\.weight \[16\] is unexpected"),
        ({"pred_num_mask_tokens": 3}, r"mask_tokens is \[10, 1, 1, 12\]; expected \[3, 1, 1, 12\]"),
    ],
)
def test_settings_that_do_not_fit_are_errors(saved, settings, message):
    change_config(saved, **settings)
    with pytest.raises(WeightsError, match=message):
        weights.read(saved)


def test_any_single_wrong_tensor_is_an_error_that_names_it(saved):
    arrays = safetensors.numpy.load_file(saved / "model.safetensors")
    for key in arrays:
        changed = {k: x for k, x in arrays.items() if k != key} | {f"{key}2": arrays[key]}
        safetensors.numpy.save_file(changed, saved / "model.safetensors")
        with pytest.raises(WeightsError) as error:
            weights.read(saved)
        shape = list(arrays[key].shape)
        assert str(error.value).split("\n  ")[1:] == [f"{key} {shape} is missing", f"{key}2 {shape} is unexpected"]


def test_folders_without_a_file_and_damaged_settings_are_errors(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json is not valid JSON"):
        weights.read(saved)
    (saved / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match=r"config\.json holds a list; expected the settings of a model"):
        weights.read(saved)
    (saved / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no config\.json; expected a folder with"):
        weights.read(saved)
    with pytest.raises(WeightsError, match=r"model\.safetensors has no config\.json beside it"):
        weights.read(saved / "model.safetensors")
    with pytest.raises(FileNotFoundError):
        weights.read(saved / "other.pt")
