"""Converts decoded frames to RGB as a player displays them: upright, with square pixels, on black.

* The display matrix rotates and mirrors frames as `ffmpeg -autorotate` does, also by angles other than 90°.
* Frames with non-square pixels are stretched in width. Aspect ratios beyond MAX_STRETCH are ignored.
* Transparent pixels are blended with black.
* Interlaced frames keep both fields, as in ffplay and mpv by default: deinterlacing would invent half the lines of each
  frame from its neighbours in time.
"""

import math
import struct
from collections.abc import Callable

import av
import av.video
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

MAX_STRETCH = 8.0  # anamorphic video is stretched by at most 2.7

Matrix = tuple[int, ...]
"""A 3×3 display matrix, row by row."""


class Screen:
    """Converts decoded frames to RGB arrays, all of the size of the video's first frame."""

    def __init__(self, stream: av.video.VideoStream, first_size: Callable[[], tuple[int, int]]):
        """`first_size` returns width and height of the first frame; called if a frame differs from the header."""
        self._reformatter = VideoReformatter()  # caches its tables between frames
        self._header_size = stream.codec_context.width, stream.codec_context.height
        self._aspect = stream.sample_aspect_ratio
        # Some programs store alpha in the fourth byte of uncompressed AVI pixels; others leave it at 0.
        self._is_padded = stream.codec_context.name == "rawvideo" and stream.codec_context.codec_tag == "\0\0\0\0"
        self._first_size = first_size
        self._size: tuple[int, int] | None = None
        self._matrix: Matrix | None = None

    def __call__(self, frame: av.video.VideoFrame) -> UInt8[np.ndarray, "Y X 3"]:
        """Returns a frame as displayed."""
        if self._size is None:
            size = frame.width, frame.height
            width, height = size if size == self._header_size else self._first_size()
            self._size = round(width * self._stretch()), height
            self._matrix = display_matrix(frame)
        width, height = self._size
        if _has_alpha(frame.format):
            frame = av.VideoFrame.from_ndarray(self._on_black(frame), format="rgb24")
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray()
        return upright(rgb, self._matrix) if self._matrix else rgb

    def _stretch(self) -> float:
        aspect = float(self._aspect or 1)
        return aspect if 1 / MAX_STRETCH <= aspect <= MAX_STRETCH else 1.0

    def _on_black(self, frame: av.video.VideoFrame) -> UInt8[np.ndarray, "Y X 3"]:
        rgba = self._reformatter.reformat(frame, format="rgba", threads=1).to_ndarray()
        alpha = rgba[..., 3:].astype(np.uint16)
        if self._is_padded and not alpha.any():
            return np.ascontiguousarray(rgba[..., :3])
        return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)


def display_matrix(frame: av.video.VideoFrame) -> Matrix | None:
    """The display matrix of a frame, if it has one."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", bytes(data))


def upright(picture_YxXxC: UInt8[np.ndarray, "Y X 3"], matrix: Matrix) -> UInt8[np.ndarray, "y x 3"]:
    """Rotates and mirrors a frame as ffmpeg does; a degenerate matrix leaves it unchanged."""
    angle = clockwise_angle(matrix)
    if angle is None:
        return picture_YxXxC
    transposed = picture_YxXxC.transpose(1, 0, 2)
    match angle:
        case 0:
            return picture_YxXxC[::-1] if matrix[4] < 0 else picture_YxXxC
        case 90:
            return transposed if matrix[3] > 0 else transposed[:, ::-1]
        case 180:
            mirrored = picture_YxXxC[:, ::-1] if matrix[0] < 0 else picture_YxXxC
            return mirrored[::-1] if matrix[4] < 0 else mirrored
        case 270:
            return transposed[::-1, ::-1] if matrix[3] < 0 else transposed[::-1]
        case _:
            return _rotate(picture_YxXxC, angle)


def clockwise_angle(matrix: Matrix) -> int | None:
    """The rotation in whole degrees from 0 to 359; None if the matrix collapses an axis."""
    across, down = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not down:
        return None
    return round(math.degrees(math.atan2(matrix[1] / down, matrix[0] / across))) % 360


def _rotate(picture_YxXxC: UInt8[np.ndarray, "Y X 3"], angle: int) -> UInt8[np.ndarray, "Y X 3"]:
    """Rotates about the centre and keeps the size; uncovered corners are black."""
    height, width, _ = picture_YxXxC.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle, 1.0)
    return cv2.warpAffine(picture_YxXxC, turn, (width, height), flags=cv2.INTER_LINEAR)


def _has_alpha(format: av.VideoFormat) -> bool:
    return format.has_palette or any(component.is_alpha for component in format.components)
