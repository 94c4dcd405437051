"""Encoder, predictor and probes. No other package imports flax."""

from jepa_jax.models.encoder import Encoder, build_encoder, level_ends
from jepa_jax.models.predictor import Predictor, build_predictor

__all__ = ["Encoder", "Predictor", "build_encoder", "build_predictor", "level_ends"]
