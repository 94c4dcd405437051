"""Encoders by reference, and their export as files of weights."""

import os
from typing import Literal

from jepa_jax import weights
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.features import extractor
from jepa_jax.inference.video_encoder import VideoEncoder


def load(reference: str | os.PathLike[str]) -> VideoEncoder:
    """Returns the frozen encoder behind a reference, with its predictor if it has one.

    Args:
        reference: a training run, WORKDIR (its last checkpoint) or WORKDIR:STEP, here or on gs:// or s3://. Released
            weights: a .pt file of V-JEPA 2 or 2.1, a folder with config.json and model.safetensors, the .safetensors
            file in it, or a name on the Hugging Face hub, such as "facebook/vjepa2-vitl-fpc64-256". Or an encoder
            before training: random:WORKDIR or random:CONFIG[:RECIPE].

    Raises:
        ConfigError: no training run or config of this name.
        CheckpointError: no checkpoint, none of that step, or a damaged one.
        WeightsError: weights that cannot be read or downloaded.
        FileNotFoundError: no such file of weights.
    """
    frozen = frozen_encoder.load(os.fspath(reference), predictor=True)
    params, predictor_params = extractor.Device().replicate((frozen.params, frozen.predictor_params))
    config = frozen.config
    return VideoEncoder(
        params=params,
        settings=config.encoder,
        clip=config.clip,
        dtype=config.dtype,
        preprocessing=frozen.preprocessing,
        source=frozen.source,
        predictor_params=predictor_params,
        predictor_settings=None if predictor_params is None else config.predictor,
    )


def save(
    encoder: VideoEncoder,
    folder: str | os.PathLike[str],
    format: Literal["transformers", "vjepa2.1"] = "transformers",
) -> dict[str, str]:
    """Writes an encoder, and its predictor, as model.safetensors, config.json and preprocessor_config.json.

    `load` of the folder returns the same features bit for bit. One exception: transformers has no modality embedding;
    that of a training run is added to what it acts with, so that features differ by rounding.

    Args:
        encoder: of `load`, or `dataclasses.replace(encoder, params=…)`.
        folder: to write to; a new or empty one.
        format: "transformers", for VJEPA2Model.from_pretrained: one level, tiled rotary positions, with predictor. Or
            "vjepa2.1": the names of V-JEPA 2.1's PyTorch modules: any levels, interleaved positions.

    Returns:
        Parameters that the format does not have, with the reason.

    Raises:
        WeightsError: the format cannot hold this encoder (lists every reason), or the folder is not empty.
    """
    return weights.save(
        folder,
        encoder.settings,
        encoder.params,
        encoder.predictor_settings,
        encoder.predictor_params,
        encoder.clip,
        format,
        preprocessing=encoder.preprocessing,
        dtype=encoder.dtype,
    )
