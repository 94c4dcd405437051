"""Encoders and predictors of this package as files that others read."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import safetensors.numpy

from jepa_jax import models
from jepa_jax.config import ClipConfig, EncoderConfig, PredictorConfig
from jepa_jax.files import paths
from jepa_jax.models.sizes import parse_size
from jepa_jax.preprocessing import VJEPA2, Preprocessing
from jepa_jax.settings import to_dict
from jepa_jax.weights import assemble, formats
from jepa_jax.weights.formats import preprocessor_config, transformers_config, vjepa2_1
from jepa_jax.weights.pretrained import CONFIG, OWN, VJEPA2_1_TYPE, WEIGHTS
from jepa_jax.weights.tensors import WeightsError


def save(
    folder: str | os.PathLike[str],
    encoder: EncoderConfig,
    encoder_params: Mapping[str, Any],
    predictor: PredictorConfig | None,
    predictor_params: Mapping[str, Any] | None,
    clip: ClipConfig,
    format: Literal["transformers", "vjepa2.1"] = "transformers",
    *,
    preprocessing: Preprocessing = VJEPA2,
    dtype: str = "float32",
) -> dict[str, str]:
    """Writes model.safetensors, config.json and preprocessor_config.json.

    The parameters are written as they are, in float32, and `read` returns them bit for bit. One exception is
    transformers, which has no modality embeddings: that of videos is added to the biases of the patch embedding and of
    the predictor's embedding, and to the mask tokens.

    Args:
        folder: to write to; a new or empty one.
        encoder: its settings.
        encoder_params: as of `models.build_encoder`.
        predictor: its settings; None only with vjepa2.1.
        predictor_params: as of `models.build_predictor`.
        clip: shape of the clips of training.
        format: transformers, for VJEPA2Model.from_pretrained, which has one level and tiled rotary positions. Or
            vjepa2.1: the names of V-JEPA 2.1's PyTorch modules, for any number of levels and interleaved positions.
        preprocessing: of the clips in the encoder's own evaluation.
        dtype: of the encoder's computation, for `read`; the parameters are float32.

    Returns:
        The parameters that the format does not have, with the reason.

    Raises:
        WeightsError: the format cannot hold this model (says why), or the folder is not empty.
    """
    target = pathlib.Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError(f"{target} exists and is not an empty folder; choose another.")
    if reasons := _obstacles(encoder, predictor, clip, format):
        lines = "".join(f"\n  {reason}" for reason in reasons)
        raise WeightsError(f"the format {format!r} cannot hold this model:{lines}")
    params: dict[str, Mapping[str, Any]] = {"encoder": encoder_params}
    if predictor_params is not None:
        params["predictor"] = predictor_params
    modules = formats.modules(format, encoder, predictor)
    if modules.keys() != params.keys():
        raise WeightsError("predictor and predictor_params belong together: give both or neither.")
    if format == "transformers":
        assert predictor is not None
        params = {"encoder": _without_modality(params["encoder"]), "predictor": _without_modality(params["predictor"])}
        content = transformers_config.write(encoder, predictor, clip)
    else:
        content = {
            "model_type": VJEPA2_1_TYPE,
            "encoder": to_dict(encoder),
            "predictor": None if predictor is None else to_dict(predictor),
            "clip": to_dict(clip),
        }
    if dtype != "float32":
        content[OWN] = {"dtype": dtype}
    tensors = {}
    for name, module in modules.items():
        tensors |= assemble.tensors(module, params[name])
    target.mkdir(parents=True, exist_ok=True)
    paths.write_text(target / CONFIG, json.dumps(content, indent=2) + "\n")
    described = preprocessor_config.write(preprocessing, clip)
    paths.write_text(target / preprocessor_config.NAMES[0], json.dumps(described, indent=2) + "\n")
    temporary = target / f"{WEIGHTS}.tmp"
    safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, target / WEIGHTS)
    return {f"{name}/{path}": fill.why for name, module in modules.items() for path, fill in module.fills.items()}


def _obstacles(encoder: EncoderConfig, predictor: PredictorConfig | None, clip: ClipConfig, format: str) -> list[str]:
    """Returns why the format cannot hold the model, one reason a line."""
    size = parse_size(encoder.size)
    found = []
    if clip.height != clip.width:
        found.append(f"clips are {clip.height}×{clip.width}; expected square ones")
    if format == "vjepa2.1":
        if encoder.rotary != "interleaved":
            found.append(f"rotary positions are {encoder.rotary}; expected interleaved")
        ends = tuple(models.level_ends(size.depth, encoder.levels, encoder.level_ends))
        known = vjepa2_1.LEVEL_ENDS.get(size.depth)
        if known is not None and encoder.levels == len(known) and ends != known:
            found.append(f"levels end after blocks {ends}; V-JEPA 2.1 with {size.depth} blocks has {known}")
        return found
    if encoder.levels != 1:
        found.append(f"the encoder has {encoder.levels} levels; expected 1")
    if encoder.rotary != "tiled":
        found.append(f"rotary positions are {encoder.rotary}; expected tiled")
    if predictor is None:
        found.append("there is no predictor")
    elif predictor.rotary_scale == "on" or predictor.output not in (0, size.width):
        found.append("the predictor has scaled positions or outputs of another width than the encoder")
    return found


def _without_modality(params: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the modality embedding of videos to what it is added to."""
    modality = np.asarray(params["video_modality"])
    found = dict(params)
    if "mask_tokens" in params:
        found["embed"] = dict(params["embed"], bias=np.asarray(params["embed"]["bias"]) + modality[0, 0])
        found["mask_tokens"] = np.asarray(params["mask_tokens"]) + modality
    else:
        embedding = params["patch_embedding"]
        found["patch_embedding"] = dict(embedding, bias=np.asarray(embedding["bias"]) + modality[0, 0])
    return found
