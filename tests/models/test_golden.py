"""Encoder and predictor agree with the study's code and with transformers' V-JEPA 2, in float32, to 1e-5."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import models, pixels
from jepa_jax.config import EncoderConfig, PredictorConfig
from jepa_jax.models import encoder as encoder_module
from jepa_jax.models import torch_weights

TOLERANCE = 1e-5
ENDS = (3, 6, 9, 12)
ENCODER = EncoderConfig(size="32x12x2")


@pytest.fixture(scope="module")
def weights(golden):
    return golden("weights")


@pytest.fixture(scope="module")
def encoder_params(weights):
    return torch_weights.vjepa_encoder(weights, ENDS)


@functools.cache
def encode(config, all_levels):
    return jax.jit(functools.partial(models.build_encoder(config).apply, all_levels=all_levels))


@pytest.mark.parametrize(
    ("name", "index", "all_levels"),
    [
        ("out_all_levels", None, True),
        ("out_last", None, False),
        ("out_context_tube", "masks_context_tube", True),
        ("out_context_ragged", "masks_context_ragged", True),
    ],
)
def test_encoder(golden, encoder_params, name, index, all_levels):
    data = golden("encoder")
    clips = pixels.normalise(data["video_uint8"])
    index = None if index is None else jnp.asarray(data[index])
    out = encode(ENCODER, all_levels)({"params": encoder_params}, clips, index)
    np.testing.assert_allclose(out, data[name], atol=TOLERANCE, rtol=0)


def test_encoder_image_path(golden, encoder_params):
    data = golden("encoder")
    out = encode(ENCODER, True)({"params": encoder_params}, pixels.normalise(data["video_uint8"][:, :1]))
    np.testing.assert_allclose(out, data["out_image_all_levels"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("change", [{"scan": False}, {"remat": True}, {"scan": False, "remat": True}])
def test_unrolled_and_recomputed_blocks_agree(golden, encoder_params, change):
    data = golden("encoder")
    clips = pixels.normalise(data["video_uint8"])
    out = encode(dataclasses.replace(ENCODER, **change), False)({"params": encoder_params}, clips)
    np.testing.assert_allclose(out, data["out_last"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("z", "masks", "mask_token", "image", "expected"),
    [
        ("z_tube", "tube", 0, False, ("pred_tube", "context_tube")),
        ("z_tube", "tube", 0, True, ("pred_tube_image_modality", "context_tube_image_modality")),
        ("z_ragged", "ragged", 1, False, ("pred_ragged_masktoken1", "context_ragged_masktoken1")),
    ],
)
def test_predictor(golden, golden_meta, weights, z, masks, mask_token, image, expected):
    data = golden("predictor")
    predictor = models.build_predictor(PredictorConfig(size="16x4x2"), ENCODER)
    out = jax.jit(
        functools.partial(predictor.apply, grid=tuple(golden_meta["grid"]), mask_token=mask_token, image=image)
    )(
        {"params": torch_weights.vjepa_predictor(weights, 4)},
        jnp.asarray(data[z]),
        jnp.asarray(data[f"masks_context_{masks}"]),
        jnp.asarray(data[f"masks_target_{masks}"]),
    )
    for got, name in zip(out, expected, strict=True):
        np.testing.assert_allclose(got, data[name], atol=TOLERANCE, rtol=0)


def test_transformers_vjepa2(golden):
    """The tiled rotary layout, one level, one Linear into the predictor, mask token 1."""
    data = golden("vjepa2_transformers")
    hf = json.loads(str(data["config"]))
    weights = {name.removeprefix("param."): value for name, value in data.items() if name.startswith("param.")}
    config = EncoderConfig(
        size=f"{hf['hidden_size']}x{hf['num_hidden_layers']}x{hf['num_attention_heads']}", levels=1, rotary="tiled"
    )
    clips = pixels.normalise(data["video_uint8"])
    params = torch_weights.transformers_encoder(weights, hf["num_hidden_layers"])
    hidden = encode(config, False)({"params": params}, clips)
    np.testing.assert_allclose(hidden, data["last_hidden_state"], atol=TOLERANCE, rtol=0)

    depth = hf["pred_num_hidden_layers"]
    predictor = models.build_predictor(
        PredictorConfig(size=f"{hf['pred_hidden_size']}x{depth}x{hf['pred_num_attention_heads']}"),
        config,
        mask_tokens=hf["pred_num_mask_tokens"],
    )
    context_index, target_index = jnp.asarray(data["context_mask"]), jnp.asarray(data["target_mask"])
    out, _ = predictor.apply(
        {"params": torch_weights.transformers_predictor(weights, depth)},
        encoder_module.gather_tokens(hidden, context_index),
        context_index,
        target_index,
        grid=(4, 4, 4),
        mask_token=1,
    )
    np.testing.assert_allclose(out, data["predictor_last_hidden_state"], atol=TOLERANCE, rtol=0)
