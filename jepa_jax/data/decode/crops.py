"""Boxes of a frame, and transforms that use no more of a frame than a box."""

import abc
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8


class Box(NamedTuple):
    """A crop in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, frame_YxXxC: UInt8[np.ndarray, "Y X 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
        """Returns the crop of a frame, without copying it."""
        return frame_YxXxC[self.top : self.top + self.height, self.left : self.left + self.width]


class CropTransform(abc.ABC):
    """A `videos.Transform` that uses only a box of each frame, so that a source may decode only this box."""

    @abc.abstractmethod
    def box(self, height: int, width: int) -> Box:
        """Returns the box of the next frame, which has `height`×`width` pixels."""

    @abc.abstractmethod
    def of_crop(self, crop_YxXxC: UInt8[np.ndarray, "_ _ 3"]) -> np.ndarray:
        """Transforms a frame, given the crop at its box."""

    def __call__(self, frame_YxXxC: UInt8[np.ndarray, "Y X 3"]) -> np.ndarray:
        """Transforms a whole frame."""
        height, width, _ = frame_YxXxC.shape
        return self.of_crop(self.box(height, width).of(frame_YxXxC))
