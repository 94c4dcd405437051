"""Colours of values: cividis, which is even in lightness and the same to colour-blind people; Okabe–Ito for classes."""

import cv2
import numpy as np
from jaxtyping import Float, Num, UInt8

UNKNOWN = (200, 200, 200)  # of values that are NaN
# Okabe & Ito (2008), without yellow and with the darkest first: distinguishable with any form of colour vision.
OKABE_ITO = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
TARGET = (213, 94, 0)  # vermillion
CONTEXT = (0, 114, 178)  # blue


def paint(values: Float[np.ndarray, "*S"], low: float, high: float) -> UInt8[np.ndarray, "*S 3"]:
    """Returns the RGB colour of each value on cividis from `low` (dark blue) to `high` (yellow); NaN is grey.

    Raises:
        ValueError: `high` is below `low`.
    """
    if high < low:
        raise ValueError(f"low is {low} and high is {high}; expected low ≤ high.")
    share = np.nan_to_num((values - low) / (high - low) if high > low else np.zeros_like(values), nan=0.0)
    level = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
    bgr = cv2.applyColorMap(level.reshape(-1, 1), cv2.COLORMAP_CIVIDIS)
    rgb = bgr[:, 0, ::-1].reshape(*values.shape, 3)
    return np.where(np.isnan(values)[..., None], np.array(UNKNOWN, np.uint8), rgb)


def bar(height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Returns a vertical scale of `paint`, the largest value on top."""
    column_Y = np.linspace(1, 0, height)
    return np.repeat(paint(column_Y, 0.0, 1.0)[:, None], width, axis=1)


def blend(
    image: Num[np.ndarray, "*S 3"], colour: tuple[int, int, int] | Num[np.ndarray, "*S 3"], share: float
) -> UInt8[np.ndarray, "*S 3"]:
    """Returns the image mixed with a colour or another image; `share` 0 is the image."""
    return np.rint((1 - share) * image + share * np.asarray(colour, np.float64)).astype(np.uint8)
