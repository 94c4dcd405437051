"""Every supported video and image suffix is read, if PyAV or Pillow can write it."""

import av
import numpy as np
import pytest
from PIL import Image

from jepa_jax import config
from jepa_jax.data import sources
from jepa_jax.data.decode import videos
from jepa_jax.data.listing import file_types

MUXERS = {
    "264 h264": ("h264", "libx264"),
    "3g2": ("3g2", "mpeg4"),
    "3gp": ("3gp", "mpeg4"),
    "asf": ("asf", "msmpeg4v3"),
    "wmv": ("asf", "wmv2"),
    "avi divx xvid": ("avi", "mpeg4"),
    "f4v m4v mp4": ("mp4", "libx264"),
    "flv": ("flv", "flv1"),
    "gif": ("gif", "gif"),
    "ivf": ("ivf", "libvpx"),
    "m1v": ("mpeg1video", "mpeg1video"),
    "m2v": ("mpeg2video", "mpeg2video"),
    "m2t m2ts mts tp trp ts": ("mpegts", "mpeg2video"),
    "mj2": ("mov", "jpeg2000"),
    "mjpeg mjpg": ("mjpeg", "mjpeg"),
    "mk3d mkv": ("matroska", "libx264"),
    "mov qt": ("mov", "libx264"),
    "mpe mpeg mpg": ("mpeg", "mpeg1video"),
    "mxf": ("mxf", "mpeg2video"),
    "nut": ("nut", "mpeg4"),
    "rm rmvb": ("rm", "rv20"),
    "vob": ("vob", "mpeg2video"),
    "webm": ("webm", "libvpx"),
    "wtv": ("wtv", "mpeg2video"),
}
NOT_WRITTEN_HERE = {".265", ".h265", ".hevc", ".dv", ".obu", ".ogm", ".ogv", ".y4m"}
VIDEO_CASES = [(name, *how) for names, how in MUXERS.items() for name in names.split()]


def read_numbers(path, numbers):
    source = sources.open_source(config.SourceConfig(path=str(path.parent)), "mine")
    assert source.size == 1
    return numbers(source.read_clip(0, lambda count, fps: np.array([0, 7, count - 1])))


@pytest.mark.parametrize(("ending", "container", "codec"), VIDEO_CASES)
def test_videos_of_every_file_type_are_read(tmp_path, grey, numbers, ending, container, codec):
    path = tmp_path / f"clip.{ending.upper()}"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = grey(0).shape[:2]
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if codec != "gif":
            stream.bit_rate, stream.gop_size = 400_000, 6
        for k in range(24):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey(k), format="rgb24")))
        file.mux(stream.encode(None))
    assert read_numbers(path, numbers) == [0, 7, 23]


def test_every_video_suffix_is_tested():
    assert {f".{name}" for name, *_ in VIDEO_CASES} == set(file_types.VIDEO_SUFFIXES) - NOT_WRITTEN_HERE


def test_uncompressed_video_is_read(tmp_path, numbers):
    """YUV4MPEG2: a header and the planes of each frame; frame k is grey of level 8k + 8."""
    level = [round(16 + (8 * k + 8) * 219 / 255) for k in range(24)]
    planes = [b"FRAME\n" + bytes([y]) * (64 * 48) + bytes([128]) * (64 * 48 // 2) for y in level]
    (tmp_path / "clip.y4m").write_bytes(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg\n" + b"".join(planes))
    assert read_numbers(tmp_path / "clip.y4m", numbers) == [0, 7, 23]


IMAGES = sorted(set(file_types.IMAGE_SUFFIXES))


@pytest.mark.parametrize("ending", IMAGES)
def test_images_of_every_file_type_are_read(tmp_path, ending):
    colours = {".pbm": ((255, 255, 255), "1"), ".pgm": ((120, 120, 120), "L")}
    colour, mode = colours.get(ending, ((200, 100, 50), "RGB"))
    path = tmp_path / f"picture{ending}"
    Image.init()
    Image.new("RGB", (64, 48), colour).convert(mode).save(path, format=Image.registered_extensions()[ending])
    source = sources.open_source(config.SourceConfig(path=str(tmp_path), kind="images"), "mine")
    image = source.read_image(0)
    assert image.shape == (48, 64, 3)
    np.testing.assert_allclose(image.mean(axis=(0, 1)), colour, atol=4)


def test_text_file_with_a_video_suffix_raises(tmp_path):
    (tmp_path / "page.mp4").write_text("<html>not found</html>")
    with pytest.raises(videos.DecodeError, match=r"page\.mp4"):
        sources.open_source(config.SourceConfig(path=str(tmp_path)), "mine").read_clip(
            0, lambda count, fps: np.array([0])
        )
