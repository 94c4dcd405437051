"""Decoded frames → clips of the model's size: the random crop of training and the fixed one of evaluation."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int, UInt8
from PIL import Image

from jepa_jax import config

CROP_TRIES = 10


class Box(NamedTuple):
    """A crop in pixels."""

    top: int
    left: int
    height: int
    width: int


def random_box(height: int, width: int, settings: config.AugmentConfig, rng: np.random.Generator) -> Box:
    """A crop with a uniform share of the area and a log-uniform aspect ratio (width : height), placed uniformly.

    After ten draws that do not fit, the largest centred box whose aspect ratio lies within `settings.crop_aspect`.
    """
    low, high = settings.crop_aspect
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*settings.crop_area)
        aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    w, h = width, height
    if width < low * height:
        h = min(height, max(1, round(width / low)))
    elif width > high * height:
        w = min(width, max(1, round(height * high)))
    return Box((height - h) // 2, (width - w) // 2, h, w)


class RandomView:
    """One random resized crop and perhaps a flip, drawn at a clip's first frame and the same for all its frames.

    Bilinear without antialiasing. Frames are to have one size.
    """

    def __init__(self, size: int, settings: config.AugmentConfig, rng: np.random.Generator):
        """Views of `size`×`size` pixels."""
        self._size, self._settings, self._rng = size, settings, rng
        self._box: Box | None = None
        self._flip = False

    def __call__(self, frame_YxXxC: UInt8[np.ndarray, "Y X 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
        """The view of a frame, [size, size, 3]."""
        if self._box is None:
            height, width, _ = frame_YxXxC.shape
            self._box = random_box(height, width, self._settings, self._rng)
            self._flip = self._rng.random() < self._settings.flip_probability
        top, left, height, width = self._box
        crop_YxXxC = frame_YxXxC[top : top + height, left : left + width]
        view_YxXxC = cv2.resize(crop_YxXxC, (self._size, self._size), interpolation=cv2.INTER_LINEAR)
        return cv2.flip(view_YxXxC, 1) if self._flip else view_YxXxC


def centre_view(
    frames_FxYxXxC: UInt8[np.ndarray, "F Y X 3"], size: int, crop: int = 0, crops: int = 1
) -> Float32[np.ndarray, "F {size} {size} 3"]:
    """Short side resized to `size`, centre square cut out; values 0…255, not rounded and not normalised.

    Bilinear with half-pixel centres, no antialiasing, in float: the evaluation view of arXiv:2605.17165. With several
    `crops`, the square number `crop` (from 0) of those spread from one end of the long side to the other.
    """
    _, height, width, _ = frames_FxYxXxC.shape
    rows, columns = (
        _taps(old, new, size, (new - size) * crop // (crops - 1) if crops > 1 else (new - size) // 2)
        for old, new in zip((height, width), _resized(height, width, size), strict=True)
    )
    clip_FxYxXxC = np.empty((len(frames_FxYxXxC), size, size, 3), np.float32)
    for frame_YxXxC, out_YxXxC in zip(frames_FxYxXxC, clip_FxYxXxC, strict=True):
        tall_YxXxC = _blend(frame_YxXxC[rows.low], frame_YxXxC[rows.high], rows.share[:, None, None])
        out_YxXxC[...] = _blend(tall_YxXxC[:, columns.low], tall_YxXxC[:, columns.high], columns.share[:, None])
    return clip_FxYxXxC


class _Taps(NamedTuple):
    """For each output pixel of one axis the two input pixels it lies between, and the share of the higher one."""

    low: Int[np.ndarray, "S"]
    high: Int[np.ndarray, "S"]
    share: Float32[np.ndarray, "S"]


def _taps(old: int, new: int, size: int, start: int) -> _Taps:
    """Of `size` pixels from `start` on where `old` are resized to `new`; beyond the edge the last pixel repeats.

    Places are float32, as in PyTorch: what that rounds off shows at 1e-5 in the normalised clip.
    """
    place = np.float32(old / new) * (np.arange(start, start + size, dtype=np.float32) + np.float32(0.5))
    place = np.maximum(place - np.float32(0.5), np.float32(0))
    low = place.astype(np.int64)
    return _Taps(low, np.minimum(low + 1, old - 1), place - low.astype(np.float32))


def _blend(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    return low * (1 - share) + high * share


def centre_view_of_image(image_YxXxC: UInt8[np.ndarray, "Y X 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Short side resized to `size` (bicubic, antialiased, as Pillow does it), centre square cut out."""
    height, width, _ = image_YxXxC.shape
    height, width = _resized(height, width, size)
    top, left = (height - size) // 2, (width - size) // 2
    resized = Image.fromarray(image_YxXxC).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)[top : top + size, left : left + size]


def _resized(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The new height and width; the long side is truncated to whole pixels."""
    if width < height:
        return int(short_side * height / width), short_side
    return short_side, int(short_side * width / height)
