"""Decodes still images to upright 8-bit RGB with Pillow. Deterministic; no resizing.

Conversion of other pixel formats to 8-bit RGB:

- Transparency: the image is composited on black, so colours under alpha 0 are invisible.
- 16-bit integers (also 12-bit and signed): the upper 8 bits at the bit depth declared in the file.
- 32-bit integers: values up to 255 are kept, values up to 65,535 count as 16-bit.
- Floats: the smallest of the ranges 0 to 1, 0 to 255 and 0 to 65,535 that contains the values is scaled to 0 to 255.
- Samples outside these ranges, and images that would lose nearly all of their levels (12-bit data in a 16-bit file),
  raise an error.
- CMYK and YCCK are converted without a profile; the inverted values of CMYK JPEGs are inverted back.
- ICC profiles are not applied. Lab becomes sRGB.
- Animations: the first frame.

EXIF (or XMP) orientation is applied if it can be read; other metadata is ignored, damaged or not.
"""

import io
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from jepa_jax.data import faults

# Common value ranges, for files that declare none.
_INTEGER_TOPS = (255, 65_535)
_FLOAT_TOPS = (1.0, 255.0, 65_535.0)
_MIN_LEVELS = 16
_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _SIGNED = 0, 262, 258, 339, 2  # of TIFF
_PNG_DEPTH = 24  # offset of the bit depth in a PNG file

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # by EXIF orientation
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


def read_image(path: str, content: bytes | None = None) -> UInt8[np.ndarray, "Y X 3"]:
    """Decodes a still image to upright RGB; `content` is the file's content if it is already in memory.

    Raises:
        DecodeError: the file cannot be read, is incomplete, or has samples of an unknown range.
    """
    with faults.as_decode_error(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, which is irrelevant if the pixels decode
        # Decoding from memory limits what a wrong size in a damaged header can allocate.
        content = pathlib.Path(path).read_bytes() if content is None else content
        with open_image(content) as image:
            image.load()
            rgb_YxXx3 = to_rgb(image, content)
            return np.ascontiguousarray(UPRIGHT.get(orientation(image), np.asarray)(rgb_YxXx3))


def is_rotated(content: bytes) -> bool:
    """Whether an image has to be rotated or mirrored to be upright."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(content) as image:
            return orientation(image) in UPRIGHT


def open_image(content: bytes) -> Image.Image:
    """Opens an image file with Pillow; its pixels are not decoded yet."""
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:  # Pillow's message contains a memory address
        raise UnidentifiedImageError("cannot identify the format of the image") from error
    except Exception:
        if content[4:11] != b"ftypavi":
            raise
    # libavif rejects files with invalid EXIF data. AVIF stores the orientation elsewhere, so the EXIF item is hidden.
    return Image.open(io.BytesIO(content.replace(b"Exif", b"skip")))


def orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 if it cannot be read, so that damaged metadata never rejects valid pixels."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation)
        return int(value[0] if isinstance(value, tuple | bytes) else value)
    except Exception:
        return 1


def to_rgb(image: Image.Image, content: bytes) -> UInt8[np.ndarray, "Y X 3"]:
    """Decodes the pixels of an image of any mode. Transparent pixels are composited on black."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey(_high_depth(image))
    if image.mode == "La":  # premultiplied alpha: already composited on black
        return _grey(np.asarray(image)[..., 0])
    if image.has_transparency_data:
        _scale_clear_colour(image, content)
        return np.asarray(image if image.mode == "RGBa" else image.convert("RGBA").convert("RGBa"))[..., :3]
    return np.asarray(image.convert("RGB"))


def _grey(samples_YxX: UInt8[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "Y X 3"]:
    return np.repeat(samples_YxX[..., None], 3, axis=-1)


def _scale_clear_colour(image: Image.Image, content: bytes) -> None:
    """Scales a PNG's transparent colour from the file's bit depth to the 8 bits of Pillow's pixels."""
    clear = image.info.get("transparency")
    if image.format != "PNG" or clear is None:
        return
    depth = content[_PNG_DEPTH]
    if image.mode == "1":
        image.info["transparency"] = 255 if clear else 0
    elif image.mode == "L" and depth < 8 and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // (2**depth - 1)
    elif image.mode == "RGB" and depth == 16 and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _high_depth(image: Image.Image) -> UInt8[np.ndarray, "Y X"]:
    """Converts grey samples of more than 8 bits to 8 bits."""
    samples_YxX = np.asarray(image)
    grey_YxX = _to_8_bits(samples_YxX, _declared_top(image))
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey_YxX = 255 - grey_YxX
    if isinstance(clear := image.info.get("transparency"), int):
        grey_YxX = np.where(samples_YxX == clear, np.uint8(0), grey_YxX)
    return grey_YxX


def _declared_top(image: Image.Image) -> int | None:
    """The value of white implied by the file's bit depth; None for 32-bit and float samples."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        # Pillow scales PGM above 8 bits to 16; early versions use mode "I" for it and for 16-bit PNG.
        is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
        return 65_535 if is_16_bit else None
    bits = tags.get(_BITS, (32,))[0]
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    return None if image.mode == "F" or bits > 16 else 2 ** (bits - signed) - 1


def _to_8_bits(samples_YxX: Num[np.ndarray, "Y X"], top: int | None) -> UInt8[np.ndarray, "Y X"]:
    """Scales samples from 0 … top to 0 … 255.

    Raises:
        ValueError: samples are outside the range or in no common one, or nearly all levels would be lost.
    """
    floats = np.issubdtype(samples_YxX.dtype, np.floating)
    low, high = samples_YxX.min().item(), samples_YxX.max().item()  # NaN if any sample is
    tops = (top,) if top else _FLOAT_TOPS if floats else _INTEGER_TOPS
    white = next((top for top in tops if low >= 0 and high <= top), None)
    if white is None:
        expected = " or ".join(f"0 to {top:,.0f}" for top in tops)
        raise ValueError(f"its samples range from {low:,.6g} to {high:,.6g}; expected {expected}: rescale them")
    if floats:
        scaled_YxX = np.rint(samples_YxX * np.float32(255 / white))
    else:
        scaled_YxX = samples_YxX.astype(np.uint32) * 256 // (int(white) + 1)
    if (levels := int(scaled_YxX.max()) + 1) <= _MIN_LEVELS and len(np.unique(samples_YxX)) > _MIN_LEVELS:
        raise ValueError(
            f"its samples range from {low:,.6g} to {high:,.6g} of {white:,.6g}, so only {levels} levels remain at 8 "
            "bits: rescale them"
        )
    return scaled_YxX.astype(np.uint8)
