"""Encoder, predictor and probe match the study's code and the V-JEPA 2 of transformers to 1e-5 in float32."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from jepa_jax import models
from jepa_jax.models import pixels
from jepa_jax.parity import comparison, model_cases

FOLDER = comparison.Folder(pathlib.Path(__file__).parent.parent / "golden")
CASES = {case.name: case for case in model_cases.cases(FOLDER)}


@pytest.mark.parametrize("name", CASES)
def test_outputs_match_the_golden_ones(name):
    assert comparison.run(CASES[name]).failed == []


def test_all_ten_outputs_are_compared():
    assert len(CASES) == 10


@pytest.mark.parametrize("change", [{"scan": False}, {"remat": "full"}, {"scan": False, "remat": "level"}])
def test_unrolled_and_recomputed_blocks_match_the_golden_output(change):
    data = FOLDER.arrays("encoder")
    encoder = models.build_encoder(dataclasses.replace(model_cases.encoder_config(FOLDER), **change))
    params = model_cases.params(FOLDER)["encoder"]
    out = jax.jit(encoder.apply)({"params": params}, pixels.normalise(data["video_uint8"]))
    np.testing.assert_allclose(out, data["out_last"], atol=comparison.ARRAY, rtol=0)


def test_features_of_a_bfloat16_encoder_are_float32():
    """Like the output of the study's LayerNorm under autocast, they are not rounded to bfloat16."""
    data = FOLDER.arrays("encoder")
    encoder = models.build_encoder(model_cases.encoder_config(FOLDER), jax.numpy.bfloat16)
    params = model_cases.params(FOLDER)["encoder"]
    encode = jax.jit(encoder.apply, static_argnames="all_levels")
    clips = pixels.normalise(data["video_uint8"])
    for all_levels in (False, True):
        features = encode({"params": params}, clips, all_levels=all_levels)
        assert features.dtype == np.float32
        assert (features != features.astype(jax.numpy.bfloat16)).mean() > 0.9
