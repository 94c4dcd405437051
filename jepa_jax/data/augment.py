"""Resizing and cropping of decoded frames: random crops for training, fixed crops for evaluation."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int, UInt8
from PIL import Image

from jepa_jax import config
from jepa_jax.data.decode import crops
from jepa_jax.preprocessing import TRAINED_HERE, Preprocessing

CROP_TRIES = 10


def random_box(
    height: int, width: int, settings: config.AugmentConfig, rng: np.random.Generator, view_aspect: float = 1.0
) -> crops.Box:
    """Draws a crop with uniform area, log-uniform aspect ratio (width : height) and uniform position.

    If ten draws do not fit, returns the largest centred box with an aspect ratio within `settings.crop_aspect`.

    Args:
        height: height of the frame, in pixels.
        width: width of the frame, in pixels.
        settings: `crop_aspect` is relative to `view_aspect`; 1 preserves shapes.
        rng: the random generator.
        view_aspect: width : height of the view to which the crop is resized.
    """
    low, high = (view_aspect * aspect for aspect in settings.crop_aspect)
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*settings.crop_area)
        aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return crops.Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    w, h = width, height
    if width < low * height:
        h = min(height, max(1, round(width / low)))
    elif width > high * height:
        w = min(width, max(1, round(height * high)))
    return crops.Box((height - h) // 2, (width - w) // 2, h, w)


class RandomView(crops.CropTransform):
    """A random resized crop and random flip, drawn at a clip's first frame and applied to all of its frames.

    Bilinear without antialiasing. All frames must have the same size.
    """

    def __init__(self, height: int, width: int, settings: config.AugmentConfig, rng: np.random.Generator):
        """The view has `height`×`width` pixels."""
        self._height, self._width, self._settings, self._rng = height, width, settings, rng
        self._box: crops.Box | None = None
        self._flip = False

    def box(self, height: int, width: int) -> crops.Box:
        """Returns the crop, which is drawn for the first frame."""
        if self._box is None:
            self._box = random_box(height, width, self._settings, self._rng, self._width / self._height)
            self._flip = self._rng.random() < self._settings.flip_probability
        return self._box

    def of_crop(self, crop_YxXxC: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
        """Returns the view of a frame, [height, width, 3]."""
        view_YxXxC = cv2.resize(crop_YxXxC, (self._width, self._height), interpolation=cv2.INTER_LINEAR)
        return cv2.flip(view_YxXxC, 1) if self._flip else view_YxXxC


def centre_view(
    frames_FxYxXxC: UInt8[np.ndarray, "F Y X 3"],
    height: int,
    width: int,
    crop: int = 0,
    crops: int = 1,
    preprocessing: Preprocessing = TRAINED_HERE,
) -> Float32[np.ndarray, "F {height} {width} 3"]:
    """Resizes frames to cover `height`×`width` and takes a centre crop.

    Values are 0…255, not rounded and not normalised. Bilinear with half-pixel centres, no antialiasing, in float: the
    evaluation view of arXiv:2605.17165. With several `crops`, returns crop number `crop` (from 0) of those evenly
    spaced along the long side. A single crop may be of larger frames, by `preprocessing`, as in V-JEPA 2.
    """
    _, tall, wide, _ = frames_FxYxXxC.shape
    single = preprocessing if crops == 1 else TRAINED_HERE
    covering = _covering(tall, wide, single.resized(height), single.resized(width))
    rows, columns = (
        _taps(before, new, size, (new - size) * crop // (crops - 1) if crops > 1 else _centre(new, size, single))
        for before, new, size in zip((tall, wide), covering, (height, width), strict=True)
    )
    clip_FxYxXxC = np.empty((len(frames_FxYxXxC), height, width, 3), np.float32)
    for frame_YxXxC, out_YxXxC in zip(frames_FxYxXxC, clip_FxYxXxC, strict=True):
        tall_YxXxC = _blend(frame_YxXxC[rows.low], frame_YxXxC[rows.high], rows.share[:, None, None])
        out_YxXxC[...] = _blend(tall_YxXxC[:, columns.low], tall_YxXxC[:, columns.high], columns.share[:, None])
    return clip_FxYxXxC


class _Taps(NamedTuple):
    """For each output pixel of an axis, the two neighbouring input pixels and the weight of the higher one."""

    low: Int[np.ndarray, "S"]
    high: Int[np.ndarray, "S"]
    share: Float32[np.ndarray, "S"]


def _taps(old: int, new: int, size: int, start: int) -> _Taps:
    """Taps of output pixels `start` … `start` + `size` − 1 for a resize from `old` to `new`; edge pixels repeat.

    Coordinates are float32, as in PyTorch: the rounding is visible at 1e-5 in the normalised clip.
    """
    position = np.float32(old / new) * (np.arange(start, start + size, dtype=np.float32) + np.float32(0.5))
    position = np.maximum(position - np.float32(0.5), np.float32(0))
    low = position.astype(np.int64)
    return _Taps(low, np.minimum(low + 1, old - 1), position - low.astype(np.float32))


def _blend(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    return low * (1 - share) + high * share


def centre_view_of_image(
    image_YxXxC: UInt8[np.ndarray, "Y X 3"], height: int, width: int, preprocessing: Preprocessing = TRAINED_HERE
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Resizes an image to cover `height`×`width` (bicubic, antialiased, by Pillow) and takes the centre crop.

    `preprocessing` is as in `centre_view`.
    """
    old_height, old_width, _ = image_YxXxC.shape
    tall, wide = _covering(old_height, old_width, preprocessing.resized(height), preprocessing.resized(width))
    top, left = _centre(tall, height, preprocessing), _centre(wide, width, preprocessing)
    resized = Image.fromarray(image_YxXxC).resize((wide, tall), Image.Resampling.BICUBIC)
    return np.asarray(resized)[top : top + height, left : left + width]


def _centre(new: int, size: int, preprocessing: Preprocessing) -> int:
    """Start of a crop of `size` pixels; a half is rounded down, or to even where frames are larger, as in V-JEPA 2."""
    return (new - size) // 2 if preprocessing.resize == TRAINED_HERE.resize else round((new - size) / 2)


def _covering(old_height: int, old_width: int, height: int, width: int) -> tuple[int, int]:
    """The height and width of a frame resized to cover `height`×`width`; the longer side is rounded down."""
    if old_width * height < old_height * width:
        return int(width * old_height / old_width), width
    return height, int(height * old_width / old_height)
