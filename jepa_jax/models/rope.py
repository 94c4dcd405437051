"""Rotary position embedding in time, height and width (arXiv:2605.17165, after V-JEPA 2)."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Layout = Literal["interleaved", "tiled"]
REFERENCE_PIXELS = 256  # interleaved positions are scaled to the grid of a frame with this side


class Turns(NamedTuple):
    """Cosine and signed sine of each channel's angle, broadcastable over heads."""

    cos_BxSx1xG: Float[Array, "#B S 1 G"]
    sin_BxSx1xG: Float[Array, "#B S 1 G"]


def turns(
    index_BxS: Int[Array, "#B S"],
    grid: tuple[int, int, int],
    head_width: int,
    patch: int,
    layout: Layout,
    scaled: bool | None = None,
) -> Turns:
    """Returns the rotation of each token's channels.

    The channels of a head are divided into three spans of d = 2⌊⌊G/3⌋/2⌋ channels, for time, height and width. The
    remaining channels are not rotated. In each span, frequency i is 10000^(−i/(d/2)).

    Args:
        index_BxS: positions in the time-major order of the grid.
        grid: number of tokens in time, height and width.
        head_width: channels of a head (G), even.
        patch: side of a patch in pixels.
        layout: `interleaved`: channels 2i and 2i+1 are rotated with frequency i. `tiled`: channel j is rotated with
            frequency j mod d/2 (V-JEPA 2 weights).
        scaled: whether positions in height and width are scaled to the grid of a 256-pixel frame; by default those of
            the interleaved layout are.
    """
    _, height, width = grid
    t, within_frame = jnp.divmod(index_BxS, height * width)
    t, y, x = (position.astype(jnp.float32) for position in (t, *jnp.divmod(within_frame, width)))
    if layout == "interleaved" if scaled is None else scaled:
        last = REFERENCE_PIXELS // patch - 1
        y, x = y * (last / max(height - 1, 1)), x * (last / max(width - 1, 1))

    span = 2 * (head_width // 3 // 2)
    frequency = 10000.0 ** (-np.arange(span // 2) / max(span / 2, 1))
    frequency = np.repeat(frequency, 2) if layout == "interleaved" else np.tile(frequency, 2)
    angle = [position[..., None] * frequency.astype(np.float32) for position in (t, y, x)]
    still = jnp.zeros((*index_BxS.shape, head_width - 3 * span))
    angle_BxSxG = jnp.concatenate([*angle, still], axis=-1)
    sign = jnp.resize(jnp.array([-1.0, 1.0]), (head_width,))
    return Turns(jnp.cos(angle_BxSxG)[:, :, None], (sign * jnp.sin(angle_BxSxG))[:, :, None])


def rotate(x_BxSxAxG: Float[Array, "B S A G"], by: Turns) -> Float[Array, "B S A G"]:
    """Rotates channels 2i and 2i+1 of queries or keys as one complex number, in float32."""
    x = x_BxSxAxG.astype(jnp.float32)
    swapped = x.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape)
    return (x * by.cos_BxSx1xG + swapped * by.sin_BxSx1xG).astype(x_BxSxAxG.dtype)
