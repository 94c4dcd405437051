"""From the token grid to pixels."""

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

CELL = 96  # pixels: the shorter side of a frame in a picture is at least this, enlarged by a whole factor


def factor(height: int, width: int) -> int:
    """Returns the whole factor by which small frames are enlarged so that they can be seen."""
    return max(1, -(-CELL // min(height, width)))


def frames(video_FxYxXx3: UInt8[np.ndarray, "F Y X 3"], times: int) -> UInt8[np.ndarray, "F _ _ 3"]:
    """Returns frames enlarged by a whole factor; pixels stay sharp."""
    return video_FxYxXx3.repeat(times, axis=1).repeat(times, axis=2)


def to_pixels(
    values_TxHxWxC: Shaped[np.ndarray, "T H W C"], height: int, width: int, *, smooth: bool
) -> Shaped[np.ndarray, "T {height} {width} C"]:
    """Returns values at every pixel: interpolated linearly between the centres of tokens, or constant in each token.

    Raises:
        ValueError: not `smooth`, and the grid does not divide the pixels.
    """
    _, rows, columns, channels = values_TxHxWxC.shape
    if not smooth:
        if height % rows or width % columns:
            raise ValueError(f"a grid of {rows}×{columns} tokens does not divide {height}×{width} pixels.")
        return values_TxHxWxC.repeat(height // rows, axis=1).repeat(width // columns, axis=2)
    images = (
        cv2.resize(values_HxWxC, (width, height), interpolation=cv2.INTER_LINEAR)
        for values_HxWxC in values_TxHxWxC.astype(np.float64)
    )
    return np.stack([image.reshape(height, width, channels) for image in images])
