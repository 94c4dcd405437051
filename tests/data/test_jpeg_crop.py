"""A box of a JPEG is decoded exactly, and the rows below it are not decoded."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from jepa_jax import config
from jepa_jax.data import augment
from jepa_jax.data.decode import crops, jpeg_crop


def noise(height, width, channels=3):
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8)


def boxes(height, width, count=30):
    """Random boxes, and those of one pixel in the corners."""
    settings = config.AugmentConfig(crop_area=(0.01, 1.0))
    rng = np.random.default_rng(0)
    yield from (augment.random_box(height, width, settings, rng) for _ in range(count))
    yield from (crops.Box(top, left, 1, 1) for top in (0, height - 1) for left in (0, width - 1))


def decode(jpeg, box):
    return jpeg_crop.decode_box(jpeg, lambda height, width: box)


@pytest.mark.parametrize("subsampling", ["420", "422", "440", "444"])
@pytest.mark.parametrize(("height", "width"), [(96, 128), (67, 53), (17, 33), (5, 40), (2, 3), (1, 1)])
def test_pixels_equal_those_of_the_whole_frame(height, width, subsampling):
    """Noise has all frequencies in chroma, which is interpolated between rows."""
    jpeg = simplejpeg.encode_jpeg(noise(height, width), 90, "RGB", subsampling)
    whole = simplejpeg.decode_jpeg(jpeg, "RGB")
    for box in boxes(height, width):
        np.testing.assert_array_equal(decode(jpeg, box), box.of(whole))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"optimize": True}),
        ("RGB", {"restart_marker_blocks": 3}),
        ("RGB", {"exif": b"Exif\0\0" + b"\xff\xc0\0\0" * 20}),
    ],
)
def test_other_kinds_of_jpeg_are_decoded_exactly(mode, options):
    file = io.BytesIO()
    Image.fromarray(noise(70, 90)).convert(mode).save(file, "JPEG", quality=90, **options)
    whole = simplejpeg.decode_jpeg(file.getvalue(), "RGB")
    for box in boxes(70, 90):
        np.testing.assert_array_equal(decode(file.getvalue(), box), box.of(whole))


def test_box_is_asked_for_with_the_size_of_the_whole_frame():
    asked = []

    def box_of(height, width):
        asked.append((height, width))
        return crops.Box(0, 0, 8, 8)

    jpeg_crop.decode_box(simplejpeg.encode_jpeg(noise(67, 53), 90, "RGB", "420"), box_of)
    assert asked == [(67, 53)]


def test_rows_below_the_box_are_not_decoded(monkeypatch):
    decoded, decode_jpeg = [], simplejpeg.decode_jpeg

    def noting(*arguments, **options):
        decoded.append(decode_jpeg(*arguments, **options))
        return decoded[-1]

    monkeypatch.setattr(simplejpeg, "decode_jpeg", noting)
    jpeg = simplejpeg.encode_jpeg(noise(96, 128), 90, "RGB", "420")
    decode(jpeg, crops.Box(10, 0, 20, 128))
    decode(jpeg, crops.Box(0, 0, 95, 10))
    assert [frame.shape for frame in decoded] == [(30 + jpeg_crop.EDGE, 128, 3), (96, 128, 3)]


@pytest.mark.parametrize("damage", [b"", b"text", b"\xff\xd8", b"\xff\xd8\xff\xc0"])
def test_what_is_not_a_jpeg_raises(damage):
    with pytest.raises(ValueError, match=r".+"):
        decode(damage, crops.Box(0, 0, 4, 4))


def test_header_cut_short_raises():
    jpeg = simplejpeg.encode_jpeg(noise(32, 32), 90, "RGB", "420")
    start_of_scan = jpeg.index(b"\xff\xda")
    for length in range(0, start_of_scan, 7):
        with pytest.raises(ValueError, match=r".+"):
            decode(jpeg[:length], crops.Box(0, 0, 4, 4))
