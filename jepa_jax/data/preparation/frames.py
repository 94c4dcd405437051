"""Encodes videos and images as JPEG frames, downscaled to a maximum short side."""

import dataclasses
import functools
import pathlib
from typing import Literal, NamedTuple

import cv2
import numpy as np
import pyarrow.parquet as pq
import simplejpeg
from jaxtyping import UInt8

from jepa_jax.data import faults, sources
from jepa_jax.data.decode import images, videos
from jepa_jax.data.preparation.raw import Item
from jepa_jax.files.remote.local_copy import local_copy, open_binary

MAX_JPEG_SIDE = 65_500  # pixels; the limit of libjpeg
MIN_DECODED_SHARE = 0.75  # of the frames in the header, whose duration includes a longer audio track


@dataclasses.dataclass(frozen=True)
class JpegSettings:
    """Size and quality of the JPEG frames."""

    short_side: int = 256
    quality: int = 90

    def __post_init__(self) -> None:
        if self.short_side < 1 or not 1 <= self.quality <= 100:
            raise ValueError(f"short side {self.short_side}, quality {self.quality}; expected ≥ 1 and 1 to 100")


class Jpegs(NamedTuple):
    """The JPEG frames of an item."""

    frames: list[bytes]
    fps: float = 0.0  # 0 for an image
    nominal_frames: int = 1  # by the packets of a video; for AVI files often one too many
    remark: str = ""  # a warning about an item that is kept


def of_item(item: Item, kind: Literal["videos", "images"], settings: JpegSettings) -> Jpegs:
    """Encodes all frames of an item.

    Raises:
        DecodeError: the item cannot be read, decoded or encoded; the reason names the row of a parquet file.
        RemoteError: the item cannot be fetched.
    """
    if item.row >= 0:  # of a parquet file, of which only the row's group is read
        with faults.as_decode_error(item.path, f"row {item.row}: "):
            return of_image(item, settings)
    try:
        with local_copy(item.path) as path, faults.as_decode_error(path):
            copied = dataclasses.replace(item, path=path)
            return of_image(copied, settings) if sources.CLASSES[kind].is_image else of_video(path, settings)
    except faults.DecodeError as error:
        raise faults.DecodeError(item.path, error.reason) from error


def of_video(path: str, settings: JpegSettings) -> Jpegs:
    """Encodes all frames of a video.

    Raises:
        DecodeError: the video cannot be opened, or one of its frames is damaged.
    """
    with videos.open_frames(path) as video:
        jpegs = [encode(shrink(frame_YxXxC, settings.short_side), settings.quality) for frame_YxXxC in video.frames]
    if not jpegs:
        raise faults.DecodeError(path, "none of its video packets could be decoded")
    remark = ""
    if len(jpegs) < MIN_DECODED_SHARE * video.header_frames:
        remark = f"cut short? it ends after {len(jpegs)} of the {video.header_frames} frames that its header announces"
    return Jpegs(jpegs, video.fps, video.nominal_frames, remark)


def of_image(item: Item, settings: JpegSettings) -> Jpegs:
    """Encodes a still image; a JPEG that is upright and small enough is stored unchanged.

    Raises:
        DecodeError: the image cannot be decoded. `of_item` converts errors of reading and encoding.
    """
    content = _content(item)
    if _is_reusable(content, settings.short_side):
        return Jpegs([content])
    image_YxXxC = shrink(images.read_image(item.path, content), settings.short_side)
    return Jpegs([encode(image_YxXxC, settings.quality)])


def shrink(frame_YxXxC: UInt8[np.ndarray, "Y X 3"], short_side: int) -> UInt8[np.ndarray, "y x 3"]:
    """Downscales a frame so that its short side is at most `short_side`; the long side is rounded to whole pixels."""
    height, width, _ = frame_YxXxC.shape
    if min(height, width) <= short_side:
        return frame_YxXxC
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(frame_YxXxC, size, interpolation=cv2.INTER_AREA)


def encode(frame_YxXxC: UInt8[np.ndarray, "Y X 3"], quality: int) -> bytes:
    """Encodes a JPEG with 4:2:0 chroma subsampling, which nearly all videos use.

    Raises:
        ValueError: the frame is larger than a JPEG can be.
    """
    height, width, _ = frame_YxXxC.shape
    if max(height, width) > MAX_JPEG_SIDE:
        raise ValueError(f"{width:,} × {height:,} pixels; a JPEG has at most {MAX_JPEG_SIDE:,} per side")
    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame_YxXxC), quality, "RGB", "420")


def _content(item: Item) -> bytes:
    if item.row < 0:
        return pathlib.Path(item.path).read_bytes()
    group, first = _row_group(item.path, item.row)
    content = _images_of(item.path, group)[item.row - first]
    if content is None:
        raise faults.DecodeError(item.path, "it has no image: the image or its bytes are null")
    return content


@functools.lru_cache(maxsize=8)
def _group_ends(path: str) -> list[int]:
    with open_binary(path) as file:  # pyarrow rejects paths that are not UTF-8 or look like a URL
        metadata = pq.read_metadata(file)
    return np.cumsum([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]).tolist()


def _row_group(path: str, row: int) -> tuple[int, int]:
    """Returns the row group of a row and the group's first row."""
    ends = _group_ends(path)
    group = int(np.searchsorted(ends, row, side="right"))
    return group, ends[group - 1] if group else 0


@functools.lru_cache(maxsize=1)  # items are read in order, so one group is enough
def _images_of(path: str, group: int) -> list[bytes | None]:
    with open_binary(path) as file:
        column = pq.ParquetFile(file).read_row_group(group, columns=["image"]).column("image")
    return [image and image["bytes"] for image in column.to_pylist()]


def _is_reusable(content: bytes, short_side: int) -> bool:
    if not content.startswith(b"\xff\xd8"):
        return False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if min(int(height), int(width)) > short_side or colours not in ("YCbCr", "Gray"):
            return False
        simplejpeg.decode_jpeg(content, "RGB", strict=True)
        return not images.is_rotated(content)
    except Exception:
        return False  # read_image decodes it or raises
