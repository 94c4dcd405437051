"""Decodes a box of a JPEG frame and not what is below it.

The Huffman codes of a JPEG have no entry point but the first, so a decoder reads them from the top, but it can stop
after any row. The pixels of the box equal those of the whole frame.
"""

from collections.abc import Callable

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from jepa_jax.data.decode import crops

# Chroma is interpolated between neighbouring rows, so the last rows of a JPEG depend on those below them.
EDGE = 2

_BASELINE, _START_OF_SCAN = 0xC0, 0xDA  # markers, after a byte 0xFF


def decode_box(jpeg: bytes, box_of: Callable[[int, int], crops.Box]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Decodes the box `box_of(height, width)` of a frame to RGB.

    Damaged codes that a decoder can recover from are not noticed; the checksums of a record find those.

    Raises:
        ValueError: the JPEG cannot be decoded.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    box = box_of(int(height), int(width))
    at, rows = _height_position(jpeg), box.top + box.height + EDGE
    if at is None or rows >= int(height):
        return box.of(simplejpeg.decode_jpeg(jpeg, "RGB"))
    top = b"".join((jpeg[:at], rows.to_bytes(2, "big"), jpeg[at + 2 :]))
    return box.of(simplejpeg.decode_jpeg(top, "RGB", strict=False))  # `strict` would reject the remaining codes


def _height_position(jpeg: bytes) -> int | None:
    """Where the header of a baseline JPEG has its height; None for other kinds."""
    position = 2
    while position + 4 <= len(jpeg) and jpeg[position + 1] != _START_OF_SCAN:
        if jpeg[position + 1] == _BASELINE:
            return position + 5
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return None
