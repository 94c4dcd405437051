"""Images are upright, damaged metadata does not change pixels, and prepared images match their files."""

import pathlib
import struct

import numpy as np
import pytest
from image_files import HAS_AVIF, encoded, exif_of_all_types, png, replace_value, tiff, with_clear_right_half
from PIL import Image

from jepa_jax.data.decode import images
from jepa_jax.data.preparation import frames
from jepa_jax.data.preparation.raw import Item
from jepa_jax.data.sources import array_record

RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))


def read(content):
    return images.read_image("picture", content)


CORNER = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF16", "AVIF"])
def test_images_of_all_orientations_are_returned_upright(form, orientation):
    """The positions of a bright first corner and a grey first band identify each of the eight orientations."""
    if form == "AVIF" and not HAS_AVIF:
        pytest.skip("this Pillow cannot write AVIF")
    stored = np.full((32, 48, 3), 20, np.uint8)
    stored[:8] = 90
    stored[:8, :8] = 250
    image = Image.fromarray(stored)
    if form == "TIFF16":
        image = Image.fromarray(stored[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(image, form.removesuffix("16"), exif=exif)
    rgb = read(content)
    assert rgb.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    bottom, right = CORNER[orientation]
    corners = {(y, x): int(rgb[-4 * y or 4, -4 * x or 4, 0]) for y in (0, 1) for x in (0, 1)}
    assert max(corners, key=lambda at: corners[at]) == (bottom, right)
    band = (bottom, 1 - right) if orientation < 5 else (1 - bottom, right)
    assert abs(corners[band] - 90) < 30


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (0x010F, 11, lambda order: struct.pack(f"{order}f", 1.5)),  # the manufacturer's name as a float
        (0x0128, 8, lambda order: struct.pack(f"{order}hh", -2, 0)),
        (0x011A, 10, lambda order: struct.pack(f"{order}I", 8)),  # a signed fraction at an arbitrary offset
        (0x8769, 2, lambda order: b"abc\0"),  # text instead of an offset
        (0x8825, 4, lambda order: struct.pack(f"{order}I", 0xFFFFFFF0)),  # an offset past the end
        (0x010F, 99, lambda order: b"\xff\xff\xff\xff"),  # an unknown type
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damaged_exif_does_not_change_the_pixels(form, tag, kind, value):
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:8] = 250
    exif = replace_value(exif_of_all_types(), tag, kind, value)
    if form == "TIFF":  # accepts only parsed tags
        parsed = Image.Exif()
        parsed.load(exif_of_all_types().tobytes())
        content = bytearray(encoded(Image.fromarray(stored), form, exif=parsed))
        directory = struct.unpack_from("<I", content, 4)[0]
        at = content.index(struct.pack("<H", tag), directory)
        content[at + 2 : at + 12] = struct.pack("<HI", kind, 1) + value("<")
        content = bytes(content)
    else:
        content = encoded(Image.fromarray(stored), form, exif=exif)
    rgb = read(content)
    assert rgb.shape == (48, 32, 3)
    assert rgb[:, -4:].mean() > 230
    assert rgb[:, :20].mean() < 20


def test_unreadable_exif_is_ignored():
    picture = Image.fromarray(np.repeat(RAMP[..., None], 3, axis=-1))
    for form in ("JPEG", "PNG", "WEBP", "AVIF"):
        if form == "AVIF" and not HAS_AVIF:
            continue
        exif = b"Exif\0\0" + b"MM\0*garbage" if form != "AVIF" else exif_of_all_types().tobytes()
        content = encoded(picture, form, exif=exif)
        if form == "AVIF":
            content = content.replace(b"MM\0*", b"Mx\0*").replace(b"II*\0", b"Ix*\0")
            wanted = (256, 4, 3)  # AVIF stores its orientation outside EXIF
        else:
            wanted = (4, 256, 3)
        assert read(content).shape == wanted, form


@pytest.mark.parametrize("orientation", [(6,), b"\x06", 6.0, "sideways", None, 0, 9, (), float("nan")])
def test_orientation_tags_of_unusual_types_are_read_or_ignored(orientation):
    image = Image.fromarray(RAMP)
    image.getexif()[0x0112] = orientation
    turned = orientation not in ("sideways", None, 0, 9, ()) and orientation == orientation
    assert (images.orientation(image) in images.UPRIGHT) == turned


def test_sideways_image_is_rotated(tmp_path, grey):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey(4)).save(tmp_path / "a.jpg", exif=exif)
    assert images.read_image(str(tmp_path / "a.jpg")).shape == (64, 48, 3)


def kinds_of_files():
    """Yields (name, content) of images that take different code paths into a prepared set."""
    y, x = np.mgrid[:40, :56]
    picture = Image.fromarray(np.stack([255 * y / 40, 255 * x / 56, 128 + 0 * x], axis=-1).astype(np.uint8))
    exif = {}
    for orientation in (1, 3, 5, 6):
        exif[orientation] = Image.Exif()
        exif[orientation][0x0112] = orientation
    damaged = replace_value(exif_of_all_types(), 0x010F, 11, lambda order: struct.pack(f"{order}f", 1.5))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    yield "plain.jpg", encoded(picture, "JPEG", quality=95)
    yield "grey.jpg", encoded(picture.convert("L"), "JPEG", quality=95)
    yield "cmyk.jpg", encoded(picture.convert("CMYK"), "JPEG", quality=95)
    yield "rgb.jpg", encoded(picture, "JPEG", quality=95, keep_rgb=True)
    yield "progressive.jpg", encoded(picture, "JPEG", quality=95, progressive=True)
    yield "profile.jpg", encoded(picture, "JPEG", quality=95, icc_profile=b"no profile at all" * 20)
    yield "damaged exif.jpg", encoded(picture, "JPEG", quality=95, exif=damaged)
    yield "xmp.jpg", encoded(picture, "JPEG", quality=95, xmp=xmp)
    yield "mpo.jpg", encoded(picture, "MPO", quality=95, save_all=True, append_images=[picture.convert("L")])
    yield "clear.png", encoded(with_clear_right_half("RGBA").resize((56, 40), Image.Resampling.NEAREST), "PNG")
    yield "16 bit.png", png(256, 16, 0, (np.arange(256) * 257).astype(">u2").tobytes())
    yield "float.tif", tiff(np.tile(np.linspace(0, 1, 56, dtype=np.float32), (40, 1)))
    for orientation, tags in exif.items():
        yield f"orientation {orientation}.jpg", encoded(picture, "JPEG", quality=95, exif=tags)
        yield f"orientation {orientation}.png", encoded(picture, "PNG", exif=tags)


@pytest.mark.parametrize(("name", "content"), [pytest.param(*kind, id=kind[0]) for kind in kinds_of_files()])
@pytest.mark.parametrize("short_side", [64, 24])
def test_prepared_image_matches_the_file(tmp_path, name, content, short_side):
    (tmp_path / name).write_bytes(content)
    item = Item(name, 0, str(tmp_path / name))
    (jpeg,) = frames.of_item(item, "images", frames.JpegSettings(short_side, 95)).frames
    wanted = frames.shrink(images.read_image(item.path), short_side)
    stored = array_record.decode_jpeg(jpeg)
    assert stored.shape == wanted.shape
    if jpeg == content:
        np.testing.assert_array_equal(stored, wanted)
    assert np.abs(stored.astype(int) - wanted).mean() < 4
    assert pathlib.Path(item.path).read_bytes() == content
