"""Images of every mode and bit depth keep their colours."""

import io
import struct

import numpy as np
import pytest
from image_files import HAS_AVIF, RED, encoded, png, tiff, with_clear_right_half
from PIL import Image, ImageCms

from jepa_jax.data import faults
from jepa_jax.data.decode import images

RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
CLEAR = (0, 0, 0)


def read(content):
    return images.read_image("picture", content)


def grey_of(content):
    """Returns the grey levels; asserts that all three channels are equal."""
    rgb = read(content)
    assert (rgb == rgb[..., :1]).all()
    return rgb[..., 0]


def of_mode(mode):
    """Returns an opaque image of one mode, filled with RED, or with grey of level 40 if the mode has no colour."""
    palette = [9, 9, 9, *RED]
    if mode in ("P", "PA"):
        image = Image.new("P", (8, 8), 1)
        image.putpalette(palette)
        return image.convert("PA") if mode == "PA" else image
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        return ImageCms.applyTransform(Image.new("RGB", (8, 8), RED), to_lab)
    values = {
        "1": 255,
        "L": 40,
        "LA": (40, 255),
        "La": (40, 255),
        "I": 40,
        "F": 40 / 255,
        "RGBA": (*RED, 255),
        "RGBa": (*RED, 255),
        "RGBX": (*RED, 0),
        "CMYK": (*(255 - value for value in RED), 0),
    }
    if mode.startswith("I;16"):
        return Image.new(mode, (8, 8), 40 * 257)
    if mode in values:
        return Image.new(mode, (8, 8), values[mode])
    return Image.new("RGB", (8, 8), RED).convert(mode)


@pytest.mark.parametrize(
    "mode",
    "1 L P RGB RGBA CMYK YCbCr LAB HSV I F LA PA La RGBa RGBX I;16 I;16L I;16B I;16N".split(),  # noqa: SIM905
)
def test_every_mode_keeps_its_colours(mode):
    wanted = {"1": (255,) * 3}.get(mode, RED if mode[0] in "PRCYH" or mode == "LAB" else (40,) * 3)
    rgb = images.to_rgb(of_mode(mode), b"")
    assert rgb.shape == (8, 8, 3)
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - wanted).max() <= 3


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I", "F"])
def test_high_bit_depth_ramp_stays_a_ramp(mode):
    """The images are built in memory, because no file format has all modes."""
    if mode == "F":
        image = Image.fromarray(RAMP.astype(np.float32) / 255)
    elif mode == "I":
        image = Image.fromarray(RAMP.astype(np.int32) * 257)
    else:
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(
            mode, RAMP.shape[::-1], (RAMP.astype(order) * np.array(257, order)).astype(order).tobytes()
        )
    np.testing.assert_array_equal(images.to_rgb(image, b""), np.repeat(RAMP[..., None], 3, axis=-1))


def test_sixteen_bit_files_keep_their_levels():
    wide = np.arange(256, dtype=np.uint16) * 257
    for content in (
        png(256, 16, 0, wide.astype(">u2").tobytes()),
        tiff(np.tile(wide, (2, 1))),
        tiff(np.tile(wide.astype(np.int32), (2, 1))),
        tiff(np.tile(wide.astype(np.int32) // 257, (2, 1))),
        b"P5\n256 1\n65535\n" + wide.astype(">u2").tobytes(),
        png(256, 16, 4, np.stack([wide, np.full_like(wide, 65535)], -1).astype(">u2").tobytes()),
        png(256, 16, 2, np.repeat(wide[:, None], 3, axis=1).astype(">u2").tobytes()),
    ):
        np.testing.assert_array_equal(grey_of(content)[0], RAMP[0])
    # In this TIFF, zero is white.
    np.testing.assert_array_equal(grey_of(tiff(np.tile(wide, (2, 1)), t262=0))[0], RAMP[0, ::-1])


def test_depths_between_8_and_16_bits_are_scaled():
    # PGM declares the value of white.
    levels = np.arange(0, 4096, 16, dtype=np.uint16)
    content = b"P5\n256 1\n4095\n" + levels.astype(">u2").tobytes()
    np.testing.assert_allclose(grey_of(content)[0].astype(int), RAMP[0], atol=1)
    # TIFF packs two 12-bit samples into three bytes.
    samples = np.tile(levels, (2, 1))
    packed = np.stack([samples[:, ::2] >> 4, (samples[:, ::2] & 15) << 4 | samples[:, 1::2] >> 8, samples[:, 1::2]], -1)
    packed = packed.astype(np.uint8).tobytes()
    content = bytearray(tiff(samples, bits=12))
    with Image.open(io.BytesIO(content)) as image:
        start = image.tag_v2[273][0]
    content[start : start + len(packed)] = packed
    np.testing.assert_array_equal(grey_of(bytes(content))[0], RAMP[0])
    # 12-bit data in a 16-bit file would become 16 nearly black levels.
    with pytest.raises(faults.DecodeError, match=r"range from 0 to 4,080 of 65,535, so only 16 levels remain"):
        read(tiff(samples))
    # A dark image with few levels is valid.
    np.testing.assert_array_equal(grey_of(tiff(np.full((2, 2), 2056, np.uint16))), np.full((2, 2), 8))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_floats_of_the_usual_ranges_are_scaled(top):
    np.testing.assert_array_equal(grey_of(tiff(RAMP.astype(np.float32) / 255 * np.float32(top))), RAMP)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.linspace(-1, 1, 64, dtype=np.float32), r"range from -1 to 1; expected 0 to 1 or 0 to 255 or 0 to 65,535"),
        (np.linspace(0, 1e6, 64, dtype=np.float32), r"range from 0 to 1e\+06; expected"),
        (np.array([0, np.nan] * 32, np.float32), "range from nan to nan"),
        (np.array([0, np.inf] * 32, np.float32), "to inf"),
        (np.linspace(0, 9, 64, dtype=np.float32), "range from 0 to 9 of 255, so only 10 levels remain"),
        (np.linspace(0, 70_000, 64).astype(np.int32), r"range from 0 to 70,000; expected 0 to 255 or 0 to 65,535"),
        (np.linspace(-5, 200, 64).astype(np.int32), "range from -5 to 200; expected"),
    ],
)
def test_samples_outside_the_usual_ranges_raise(samples, reason):
    with pytest.raises(faults.DecodeError, match=reason):
        read(tiff(samples.reshape(8, 8)))


@pytest.mark.parametrize(
    "form",
    [
        "PNG",
        "WEBP",
        "TIFF",
        "GIF",
        pytest.param("AVIF", marks=pytest.mark.skipif(not HAS_AVIF, reason="no AVIF")),
    ],
)
def test_fully_transparent_pixels_are_black(form):
    if form == "GIF":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([250, 240, 90, *RED])
        image.paste(0, (4, 0, 8, 8))
        content = encoded(image, form, transparency=0)
    else:
        options = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(
            form, {}
        )
        content = encoded(with_clear_right_half("RGBA"), form, **options)
    rgb = read(content).astype(int)
    assert np.abs(rgb[:, :4] - RED).max() <= 6
    assert np.abs(rgb[:, 4:] - CLEAR).max() <= 6


def test_half_transparent_pixels_have_half_the_colour():
    half = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    for image in (half, half.convert("RGBa"), Image.new("LA", (4, 4), (200, 128)), Image.new("La", (4, 4), (100, 128))):
        grey = len(image.getbands()) == 2
        wanted = (100, 100, 100) if grey else (100, 50, 25)
        assert np.abs(images.to_rgb(image, b"").astype(int) - wanted).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, 250, 240, 90])
    palette.putpixel((1, 0), 1)
    rgb = read(encoded(palette, "PNG", transparency=bytes([255, 0])))
    assert rgb.tolist() == [[list(RED), [0, 0, 0]]]


def test_transparent_colour_of_any_depth_is_black():
    two_bits = png(4, 2, 0, bytes([0b00011011]), struct.pack(">H", 2))
    assert grey_of(two_bits).tolist() == [[0, 85, 0, 255]]
    one_bit = png(8, 1, 0, bytes([0b00011011]), struct.pack(">H", 1))
    assert grey_of(one_bit).tolist() == [[0] * 8]
    wide = struct.pack(">3H", 0x2800, 0xFF00, 0x5000)
    assert grey_of(png(3, 16, 0, wide, struct.pack(">H", 0xFF00))).tolist() == [[0x28, 0, 0x50]]
    colour = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x2234, 0x5678, 0x9ABC)
    rgb = read(png(2, 16, 2, colour, struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)))
    assert rgb.tolist() == [[[0, 0, 0], [0x22, 0x56, 0x9A]]]


def test_cmyk_jpegs_keep_their_colours():
    content = encoded(of_mode("CMYK").resize((32, 32)), "JPEG", quality=95)
    assert b"Adobe" in content
    assert np.abs(read(content).astype(int) - RED).max() <= 4


def test_first_frame_of_an_animation_is_read():
    shown = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255))]
    for form in ("PNG", "GIF", "WEBP", "TIFF"):
        content = encoded(shown[0], form, save_all=True, append_images=shown[1:])
        assert np.abs(read(content).astype(int) - RED).max() <= 12, form


def test_files_of_common_modes_become_rgb(tmp_path, grey):
    rgb = Image.fromarray(grey(4))
    for mode, name in [("RGB", "a.png"), ("L", "b.jpg"), ("P", "c.gif"), ("RGBA", "d.png"), ("CMYK", "e.jpg")]:
        (rgb.quantize(4) if mode == "P" else rgb.convert(mode)).save(tmp_path / name)
        image = images.read_image(str(tmp_path / name))
        assert image.shape == (48, 64, 3)
        assert abs(image.astype(int) - 40).max() <= 3


def test_undecodable_images_raise_with_a_reason(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    reasons = {
        "cut.jpg": "truncated",
        "text.png": "cannot identify the format of the image$",
        "none.png": "No such file",
        "empty.png": "the file is empty",
        "folder.png": "Is a directory",
    }
    for name, reason in reasons.items():
        with pytest.raises(faults.DecodeError, match=reason):
            images.read_image(str(tmp_path / name))


def test_image_with_too_many_pixels_raises(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(faults.DecodeError, match="exceeds limit of 200 pixels"):
        read(encoded(Image.fromarray(RAMP), "PNG"))
