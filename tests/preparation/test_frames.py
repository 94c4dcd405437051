"""Stored frames: their size, their bytes and their difference from the original."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from jepa_jax.data import faults
from jepa_jax.data.decode import images
from jepa_jax.data.preparation import frames
from jepa_jax.data.preparation.raw import Item
from jepa_jax.data.sources import array_record

SETTINGS = frames.JpegSettings(short_side=32, quality=90)


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * y / height, 255 * x / width, 128 + 0 * x], axis=-1).astype(np.uint8)


def save(picture, file, **options):
    Image.fromarray(picture).save(file, **options)
    return Item(file.name, 0, str(file))


@pytest.mark.parametrize(
    ("size", "stored"), [((64, 96), (32, 48)), ((100, 33), (97, 32)), ((32, 500), (32, 500)), ((20, 30), (20, 30))]
)
def test_short_side_is_shrunk_but_never_enlarged(size, stored):
    shrunk = frames.shrink(smooth(*size), 32)
    assert shrunk.shape == (*stored, 3)
    # A ramp stays a ramp at the same position.
    columns = 255 * (np.arange(stored[1]) + 0.5) / stored[1] - 127.5 / size[1] - 0.5
    np.testing.assert_allclose(shrunk[0, :, 1], columns, atol=1)


def test_encoded_frame_is_close_to_the_original():
    picture = smooth(64, 96)
    assert np.abs(array_record.decode_jpeg(frames.encode(picture, 90)).astype(int) - picture).mean() < 1.0


def test_every_frame_of_a_video_is_stored(tmp_path, write_video, numbers):
    stored = frames.of_video(write_video(tmp_path / "clip.mp4", frames=24, fps=25), SETTINGS)
    decoded = np.stack([array_record.decode_jpeg(jpeg) for jpeg in stored.frames])
    assert (stored.fps, stored.nominal_frames) == (25.0, 24)
    assert decoded.shape == (24, 32, 43, 3)
    assert numbers(decoded) == list(range(24))


def test_small_jpeg_is_stored_unchanged(tmp_path):
    item = save(smooth(30, 40), tmp_path / "small.jpg", quality=70)
    (kept,) = frames.of_image(item, SETTINGS).frames
    assert kept == (tmp_path / "small.jpg").read_bytes()
    # Both decoders give the same pixels.
    np.testing.assert_array_equal(array_record.decode_jpeg(kept), images.read_image(item.path))


@pytest.mark.parametrize("kind", ["large.jpg", "small.png", "grey.png", "cmyk.jpg", "turned.jpg"])
def test_other_images_are_encoded_as_jpeg(tmp_path, kind):
    picture = smooth(64, 96) if kind == "large.jpg" else smooth(30, 40)
    image = Image.fromarray(picture)
    options = {}
    if kind == "grey.png":
        image = image.convert("L")
    elif kind == "cmyk.jpg":
        image = image.convert("CMYK")
    elif kind == "turned.jpg":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # displayed rotated by 90°
    image.save(tmp_path / kind, **options)
    item = Item(kind, 0, str(tmp_path / kind))
    (jpeg,) = frames.of_image(item, SETTINGS).frames
    assert simplejpeg.is_jpeg(jpeg)
    wanted = frames.shrink(images.read_image(item.path), 32)
    decoded = array_record.decode_jpeg(jpeg)
    assert decoded.shape == wanted.shape
    assert decoded.shape == {"large.jpg": (32, 48, 3), "turned.jpg": (40, 30, 3)}.get(kind, (30, 40, 3))
    assert np.abs(decoded.astype(int) - wanted).mean() < 3


def test_damaged_images_raise_with_their_path(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(smooth(30, 40)).save(whole, "JPEG")
    for name, content in {"cut.jpg": whole.getvalue()[:300], "text.jpg": b"text", "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(faults.DecodeError, match=name):
            frames.of_item(Item(name, 0, str(tmp_path / name)), "images", SETTINGS)
    with pytest.raises(faults.DecodeError, match="No such file"):
        frames.of_item(Item("gone", 0, str(tmp_path / "gone.jpg")), "images", SETTINGS)


def test_settings_out_of_range_raise():
    for wrong in ({"short_side": 0}, {"quality": 0}, {"quality": 101}):
        with pytest.raises(ValueError, match="expected"):
            frames.JpegSettings(**wrong)
