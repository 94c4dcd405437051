"""Normalization of pixel values."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jepa_jax.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Channels


def normalise(
    video_BxFxYxXxC: Num[Array | np.ndarray, "B F Y X 3"],
    mean: Channels = IMAGENET_MEAN,
    std: Channels = IMAGENET_STD,
) -> Float[Array, "B F Y X 3"]:
    """Converts RGB values from 0 to 255, channels last, to float32 and normalizes them; default: ImageNet's statistics.

    Args:
        video_BxFxYxXxC: the pixels.
        mean: of each channel, for values in 0…1.
        std: of each channel.
    """
    mean_C, std_C = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return (jnp.asarray(video_BxFxYxXxC, jnp.float32) / 255.0 - mean_C) / std_C
