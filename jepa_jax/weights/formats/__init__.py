"""File formats of released weights: where each tensor of a file belongs in the parameters."""

from typing import Literal

from jepa_jax import models
from jepa_jax.config import EncoderConfig, PredictorConfig
from jepa_jax.models.sizes import parse_size
from jepa_jax.weights.entries import Module
from jepa_jax.weights.formats import transformers_model, vjepa2, vjepa2_1

Format = Literal["vjepa2", "vjepa2.1", "transformers"]


def modules(
    format: Format,
    encoder: EncoderConfig,
    predictor: PredictorConfig | None,
    encoder_prefix: str = "encoder.",
    predictor_prefix: str = "predictor.",
) -> dict[str, Module]:
    """Returns encoder and predictor in a file format, by name."""
    size, patch, tubelet = parse_size(encoder.size), encoder.patch, encoder.tubelet
    if format == "vjepa2.1":
        ends = models.level_ends(size.depth, encoder.levels, encoder.level_ends)
        found = {"encoder": vjepa2_1.encoder(size, patch, tubelet, ends, encoder_prefix)}
    else:
        kind = vjepa2 if format == "vjepa2" else transformers_model
        found = {"encoder": kind.encoder(size, patch, tubelet, encoder_prefix)}
    if predictor is None:
        return found
    inner, tokens = parse_size(predictor.size), predictor.mask_tokens
    if format == "vjepa2.1":
        levels, outputs = predictor.levels or encoder.levels, predictor.output or size.width * encoder.levels
        module = vjepa2_1.predictor(inner, size.width, levels, outputs, tokens, predictor_prefix)
    else:
        kind = vjepa2 if format == "vjepa2" else transformers_model
        module = kind.predictor(inner, size.width, tokens, predictor_prefix)
    return found | {"predictor": module}


def describe(format: Format, encoder: EncoderConfig, predictor: PredictorConfig | None) -> str:
    """Says what a file should hold, for errors."""
    inner = "" if predictor is None else f" with a predictor {predictor.size}"
    return f"a {format} encoder {encoder.size}{inner}"
