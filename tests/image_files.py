"""Generates small image files in many formats."""

import io
import struct
import zlib

from PIL import Image, TiffImagePlugin

Image.init()
HAS_AVIF = "AVIF" in Image.SAVE  # since Pillow 11.3
RED = (200, 40, 30)


def encoded(image, form, **options):
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def png(width, depth, colour, row, extra=b""):
    """A one-row PNG of any bit depth and colour type."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
    extra = chunk(b"tRNS", extra) if extra else b""
    rows = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + extra + rows + chunk(b"IEND", b"")


def tiff(samples, bits=None, **tags):
    """A TIFF with unchanged samples. `tags` are set by number, as in t262=0."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    content = encoded(Image.fromarray(samples), "TIFF", tiffinfo=info)
    for tag, value in {**tags, **({"t258": bits} if bits else {})}.items():
        at = content.index(struct.pack("<HHI", int(tag[1:]), 3, 1), struct.unpack_from("<I", content, 4)[0])
        content = content[: at + 8] + struct.pack("<H", value) + content[at + 10 :]
    return content


def with_clear_right_half(mode):
    """An image that is RED on the left and a bright colour with alpha 0 on the right."""
    image = Image.new("RGBA", (8, 8), (*RED, 255))
    image.paste((250, 240, 90, 0), (4, 0, 8, 8))
    return image.convert(mode)


def exif_of_all_types():
    """EXIF data with orientation 6, text, rationals, a GPS position and a maker note."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    exif[0x011A] = TiffImagePlugin.IFDRational(72, 1)
    exif[0x0128] = 2
    exif[0x8769] = {0x9003: "2020:01:01 00:00:00", 0x829A: TiffImagePlugin.IFDRational(1, 50), 0x927C: b"note" * 10}
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return exif


def replace_value(exif, tag, kind, value):
    """Returns EXIF data with the type and value of one tag replaced."""
    content = bytearray(exif.tobytes())
    start = content.index(b"MM\0*") if b"MM\0*" in content else content.index(b"II*\0")
    order = ">" if content[start : start + 2] == b"MM" else "<"
    at = content.index(struct.pack(f"{order}H", tag), start + 8)
    content[at + 2 : at + 12] = struct.pack(f"{order}HI", kind, 1) + value(order)
    return bytes(content)
