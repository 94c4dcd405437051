"""The tokens of clips, by a frozen encoder."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from jepa_jax import models
from jepa_jax.config import ClipConfig
from jepa_jax.evaluation import frozen_encoder, representation
from jepa_jax.evaluation.frozen_encoder import FrozenEncoder
from jepa_jax.models import pixels
from jepa_jax.show import clips


def encode(
    frozen: FrozenEncoder, video_BxFxYxXx3: Num[np.ndarray, "B F Y X 3"], batch: int = 0
) -> Float[np.ndarray, "B T H W D"]:
    """Returns the tokens of all levels, concatenated along the channels, in float32.

    Args:
        frozen: the encoder.
        video_BxFxYxXx3: RGB, 0…255.
        batch: clips encoded together; the last batch is padded, so that all calls share one compiled program. 0: all
            clips, at most 8.
    """
    config = frozen.config
    _, frames, height, width, _ = video_BxFxYxXx3.shape
    frozen = frozen_encoder.resolve_attention(frozen, ClipConfig(frames=frames, size=(height, width)), config.dtype)
    encoder = models.build_encoder(frozen.config.encoder, config.dtype)
    grid = encoder.grid(jax.ShapeDtypeStruct(video_BxFxYxXx3.shape, jnp.float32))
    size = batch or min(clips.BATCH, len(video_BxFxYxXx3))
    parts = []
    for start in range(0, len(video_BxFxYxXx3), size):
        video = video_BxFxYxXx3[start : start + size]
        padded = np.concatenate([video, np.repeat(video[-1:], size - len(video), axis=0)])  # one compiled shape
        parts.append(np.asarray(_encode(encoder, frozen.params, padded))[: len(video)])
    tokens_BxNxD = np.concatenate(parts)
    return tokens_BxNxD.reshape(len(tokens_BxNxD), *grid, -1)


@functools.partial(jax.jit, static_argnames="encoder")
def _encode(encoder: models.Encoder, params: Any, video: Any) -> jax.Array:
    tokens: Any = encoder.apply({"params": params}, pixels.normalise(video), all_levels=True)
    return tokens.astype(jnp.float32)


def output(frozen: FrozenEncoder, tokens: Float[np.ndarray, "*S D"]) -> Float[np.ndarray, "*S E"]:
    """Returns the channels of the last level, the encoder's output."""
    return tokens[..., tokens.shape[-1] * (frozen.config.encoder.levels - 1) // frozen.config.encoder.levels :]


def levels(frozen: FrozenEncoder, tokens: Float[np.ndarray, "*S D"]) -> Mapping[str, Float[np.ndarray, "*S E"]]:
    """Returns the channels of each level, by its name: level 1, level 2, …"""
    parts = np.split(tokens, frozen.config.encoder.levels, axis=-1)
    return {f"level {number}": part for number, part in enumerate(parts, start=1)}


def halves(frozen: FrozenEncoder, tokens: Float[np.ndarray, "*S D"]) -> Mapping[str, Float[np.ndarray, "*S E"]]:
    """Returns the appearance and the dynamics channels of all levels, as the run's factorization divides them."""
    channels = representation.channel_halves(frozen.config)
    return {name.removesuffix(" half"): tokens[..., index] for name, index in channels.items() if len(index)}
