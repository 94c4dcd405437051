"""Which inputs the attention kernel of a platform supports."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import DTypeLike

NAMES = {"tpu": "splash attention", "gpu": "cuDNN's attention"}  # the kernel of each platform
CUDNN_HEAD_WIDTH = 128  # the limit on GPUs before Hopper; later ones allow 256


class Shape(NamedTuple):
    """Size of an attention: tokens of a clip, and channels of a head."""

    tokens: int
    head_width: int


def unsupported(platform: str, dtype: DTypeLike, shape: Shape) -> str:
    """Returns why a platform has no kernel for such inputs; an empty string if it has one."""
    if platform not in NAMES:
        return f"the platform {platform} has no attention kernel"
    if platform == "gpu":
        if jnp.dtype(dtype).itemsize != 2:
            return f"{NAMES[platform]} needs 16-bit floats, and dtype is {jnp.dtype(dtype)}"
        if shape.tokens % 2:
            return f"{NAMES[platform]} needs an even number of tokens, and there are {shape.tokens}"
        if shape.head_width % 8 or shape.head_width > CUDNN_HEAD_WIDTH:
            return (
                f"{NAMES[platform]} needs heads of 8, 16, … {CUDNN_HEAD_WIDTH} channels, and they have "
                f"{shape.head_width}"
            )
    return ""
