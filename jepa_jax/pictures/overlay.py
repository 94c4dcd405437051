"""Masks drawn over the frames of a clip."""

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jepa_jax.pictures import colour_map, upsample

# Lightness tells the three apart in greyscale: context as it is, target bright, unused dark.
_TARGET_SHARE, _UNUSED_SHARE = 0.65, 0.8
_TARGET, _UNUSED = (255, 190, 120), (20, 20, 20)

Grid = tuple[int, int, int]


def is_in(index_S: Int[np.ndarray, "S"], grid: Grid) -> Bool[np.ndarray, "T H W"]:
    """Returns which tokens of a grid are among time-major positions.

    Raises:
        ValueError: a position outside of the grid.
    """
    count = int(np.prod(grid))
    if len(index_S) and not 0 <= index_S.min() <= index_S.max() < count:
        raise ValueError(f"positions are {index_S.min()} to {index_S.max()}; a grid of {grid} has 0 to {count - 1}.")
    found_N = np.zeros(count, bool)
    found_N[index_S] = True
    return found_N.reshape(grid)


def masked(
    video_FxYxXx3: UInt8[np.ndarray, "F Y X 3"],
    context_TxHxW: Bool[np.ndarray, "T H W"],
    target_TxHxW: Bool[np.ndarray, "T H W"],
) -> UInt8[np.ndarray, "F Y X 3"]:
    """Returns frames in which context tokens are unchanged, target tokens orange and unused tokens nearly black."""
    frames, height, width, _ = video_FxYxXx3.shape
    context, target = (_per_frame(part, frames, height, width) for part in (context_TxHxW, target_TxHxW))
    painted = np.where(target, colour_map.blend(video_FxYxXx3, _TARGET, _TARGET_SHARE), video_FxYxXx3)
    unused = ~(context | target)
    return np.where(unused, colour_map.blend(video_FxYxXx3, _UNUSED, _UNUSED_SHARE), painted).astype(np.uint8)


def _per_frame(part_TxHxW: np.ndarray, frames: int, height: int, width: int) -> Bool[np.ndarray, "F Y X 1"]:
    pixels = upsample.to_pixels(part_TxHxW[..., None], height, width, smooth=False)
    return pixels.repeat(frames // len(pixels), axis=0)


def outline(
    image_YxXx3: UInt8[np.ndarray, "Y X 3"], row: int, column: int, grid: Grid, colour: tuple[int, int, int]
) -> UInt8[np.ndarray, "Y X 3"]:
    """Returns the image with a frame of two pixels, white inside of the colour, around one token."""
    height, width = image_YxXx3.shape[0] // grid[1], image_YxXx3.shape[1] // grid[2]
    framed = image_YxXx3.copy()
    top, left = row * height, column * width
    for inset, ink in ((0, colour), (2, (255, 255, 255))):
        token = framed[top + inset : top + height - inset, left + inset : left + width - inset]
        token[:2], token[-2:], token[:, :2], token[:, -2:] = ink, ink, ink, ink
    return framed
