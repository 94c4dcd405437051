"""Normalization of pixel values."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalise(video_BxFxYxXxC: Num[Array | np.ndarray, "B F Y X 3"]) -> Float[Array, "B F Y X 3"]:
    """Converts RGB values from 0 to 255, channels last, to float32 and normalizes them by ImageNet's mean and std."""
    return (jnp.asarray(video_BxFxYxXxC, jnp.float32) / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
