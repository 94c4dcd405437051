"""A video or image → JPEG frames, short side at most so many pixels, never upscaled."""

import dataclasses
import functools
import io
import warnings
from typing import Literal, NamedTuple

import cv2
import numpy as np
import pyarrow.parquet as pq
import simplejpeg
from jaxtyping import UInt8
from PIL import ExifTags, Image

from jepa_jax.data import decode
from jepa_jax.preparation.raw import Item

CUT_SHORT = 0.75  # of the frames announced: a header also counts what the sound lasts longer


@dataclasses.dataclass(frozen=True)
class JpegSettings:
    """How frames are written."""

    short_side: int = 256
    quality: int = 90

    def __post_init__(self) -> None:
        if self.short_side < 1 or not 1 <= self.quality <= 100:
            raise ValueError(f"short side {self.short_side}, quality {self.quality}; expected ≥ 1 and 1 to 100")


class Jpegs(NamedTuple):
    """An item as it is stored."""

    frames: list[bytes]
    fps: float = 0.0  # 0 for an image
    promised: int = 1  # frames that the packets of a video promise; often one more than an AVI file has
    remark: str = ""  # what is odd about an item that is kept all the same


def of_item(item: Item, kind: Literal["videos", "images"], settings: JpegSettings) -> Jpegs:
    """An item's frames, all of them.

    Raises:
        DecodeError: as `of_video`, `of_image`.
    """
    return of_video(item.path, settings) if kind == "videos" else of_image(item, settings)


def of_video(path: str, settings: JpegSettings) -> Jpegs:
    """All frames of a video.

    Raises:
        DecodeError: it cannot be opened, or a frame of it is damaged.
    """
    with decode.every_frame(path) as video:
        jpegs = [encode(shrink(frame_YxXxC, settings.short_side), settings.quality) for frame_YxXxC in video.frames]
    if not jpegs:
        raise decode.DecodeError(path, "none of its video packets could be decoded")
    remark = ""
    if len(jpegs) < CUT_SHORT * video.announced:
        remark = f"cut short? it ends after {len(jpegs)} of the {video.announced} frames that its header announces"
    return Jpegs(jpegs, video.fps, video.promised, remark)


def of_image(item: Item, settings: JpegSettings) -> Jpegs:
    """A still image; a JPEG that is small enough and needs no turning is stored as it is.

    Raises:
        DecodeError: it cannot be opened or is no whole image.
    """
    content = _content(item)
    if _can_stay(content, settings.short_side):
        return Jpegs([content])
    image_YxXxC = shrink(decode.read_image(item.path, content), settings.short_side)
    return Jpegs([encode(image_YxXxC, settings.quality)])


def shrink(frame_YxXxC: UInt8[np.ndarray, "Y X 3"], short_side: int) -> UInt8[np.ndarray, "y x 3"]:
    """The frame with its short side at most `short_side`; the long side is rounded to whole pixels."""
    height, width, _ = frame_YxXxC.shape
    if min(height, width) <= short_side:
        return frame_YxXxC
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(frame_YxXxC, size, interpolation=cv2.INTER_AREA)


def encode(frame_YxXxC: UInt8[np.ndarray, "Y X 3"], quality: int) -> bytes:
    """A JPEG with colour at half resolution, as nearly every video has it already."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame_YxXxC), quality, "RGB", "420")


def _content(item: Item) -> bytes:
    try:
        if item.row < 0:
            with open(item.path, "rb") as file:
                return file.read()
        group, first = _row_group(item.path, item.row)
        return _images_of(item.path, group)[item.row - first]
    except (OSError, ValueError, TypeError) as error:  # pyarrow's errors are of these
        raise decode.DecodeError(item.path, getattr(error, "strerror", None) or str(error)) from error


@functools.lru_cache(maxsize=8)
def _group_ends(path: str) -> list[int]:
    metadata = pq.read_metadata(path)
    return np.cumsum([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]).tolist()


def _row_group(path: str, row: int) -> tuple[int, int]:
    """The group of rows that a row is in, and the first row of that group."""
    ends = _group_ends(path)
    group = int(np.searchsorted(ends, row, side="right"))
    return group, ends[group - 1] if group else 0


@functools.lru_cache(maxsize=1)  # items come in order: the group just read serves the next ones
def _images_of(path: str, group: int) -> list[bytes]:
    column = pq.ParquetFile(path).read_row_group(group, columns=["image"]).column("image")
    return [image["bytes"] for image in column.to_pylist()]


def _can_stay(content: bytes, short_side: int) -> bool:
    if not content.startswith(b"\xff\xd8"):
        return False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if min(int(height), int(width)) > short_side or colours not in ("YCbCr", "Gray"):
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        simplejpeg.decode_jpeg(content, "RGB", strict=True)
        return not turned
    except (OSError, SyntaxError, ValueError):
        return False  # decoded with care and errors told elsewhere
