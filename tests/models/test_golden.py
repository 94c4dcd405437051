"""Encoder, predictor and probe agree with the study's code, and with transformers' V-JEPA 2, in float32, to 1e-5."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from jepa_jax import models, pixels
from jepa_jax.golden import comparison
from jepa_jax.golden import models as golden_models
from jepa_jax.models import torch_weights

FOLDER = comparison.Folder(pathlib.Path(__file__).parent.parent / "golden")
CASES = {case.name: case for case in golden_models.cases(FOLDER)}


@pytest.mark.parametrize("name", CASES)
def test_outputs(name):
    assert comparison.run(CASES[name]).failed == []


def test_every_output_is_compared():
    assert len(CASES) == 10


@pytest.mark.parametrize("change", [{"scan": False}, {"remat": "full"}, {"scan": False, "remat": "level"}])
def test_unrolled_and_recomputed_blocks_agree(change):
    data = FOLDER.arrays("encoder")
    encoder = models.build_encoder(dataclasses.replace(golden_models.encoder_config(FOLDER), **change))
    params = torch_weights.vjepa_encoder(FOLDER.arrays("weights"), FOLDER.ends)
    out = jax.jit(encoder.apply)({"params": params}, pixels.normalise(data["video_uint8"]))
    np.testing.assert_allclose(out, data["out_last"], atol=comparison.ARRAY, rtol=0)
