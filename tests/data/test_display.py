"""Videos are read from the right stream, upright, with square pixels and right colours; prepared sets agree."""

import fractions
import math
import pathlib
import struct

import av
import numpy as np
import pytest
from av.stream import Disposition

from jepa_jax.data.decode import display, videos
from jepa_jax.data.preparation import frames
from jepa_jax.data.sources import array_record

ONE = 1 << 16
CORNERS = np.array([[(200, 30, 30), (30, 180, 40)], [(40, 50, 210), (220, 210, 40)]], np.uint8)
"""Colours of the four quadrants of a picture."""


def quarters(height=48, width=64):
    return CORNERS.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def corners(frame):
    """Returns the colours in the middle of the four quadrants."""
    height, width, _ = frame.shape
    return frame[np.ix_((height // 4, 3 * height // 4), (width // 4, 3 * width // 4))]


def read(path, *wanted):
    return videos.read_clip(str(path), lambda count, fps: np.array(wanted))


def stored(path, *wanted):
    """Returns the same frames from a prepared set."""
    jpegs = frames.of_video(str(path), frames.JpegSettings(short_side=256, quality=95)).frames
    return [array_record.decode_jpeg(jpegs[i]) for i in wanted]


def assert_shown(path, wanted, shape, count=12, tolerance=6):
    """Asserts the colours of single frames, frames after seeks and frames of a prepared set."""
    seen = []
    videos.read_clip(str(path), lambda frames, fps: seen.append(frames) or np.array([0]))
    assert seen == [count]
    for chosen in ([0], [count - 1], [2, count // 2, count - 1]):
        for frame in (*read(path, *chosen), *stored(path, *chosen)):
            assert frame.shape == (*shape, 3)
            np.testing.assert_allclose(corners(frame).astype(int), wanted, atol=tolerance)


def write(path, codec, pix_fmt, picture, count=12, **settings):
    """Encodes the frames `picture(k)`, which are video frames or RGB or RGBA arrays."""
    with av.open(str(path), "w") as container:
        first = picture(0)
        stream = container.add_stream(codec, rate=25)
        stream.pix_fmt = pix_fmt
        stream.width, stream.height = (
            (first.width, first.height) if isinstance(first, av.VideoFrame) else first.shape[1::-1]
        )
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for k in range(count):
            frame = picture(k)
            if not isinstance(frame, av.VideoFrame):
                frame = av.VideoFrame.from_ndarray(frame, format="rgba" if frame.shape[2] == 4 else "rgb24")
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def palette_picture(swapped):
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[:4, 1:] = CORNERS.reshape(4, 3)[[1, 0, 2, 3] if swapped else [0, 1, 2, 3]]
    indices = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(24, axis=0).repeat(32, axis=1)
    return av.VideoFrame.from_ndarray((indices, palette), format="pal8")


@pytest.mark.parametrize("suffix", [".avi", ".mov"])
def test_palette_stored_once_applies_to_every_frame(tmp_path, suffix):
    path = write(tmp_path / f"palette{suffix}", "rawvideo", "pal8", lambda k: palette_picture(False))
    assert_shown(path, CORNERS, (48, 64))


def test_palette_may_change_between_frames(tmp_path):
    path = write(tmp_path / "palette.avi", "rawvideo", "pal8", lambda k: palette_picture(k >= 6))
    swapped = np.stack([CORNERS[0, ::-1], CORNERS[1]])
    for chosen in ([5, 6], [11], [7, 11], [0]):
        for k, from_file, from_set in zip(chosen, read(path, *chosen), stored(path, *chosen), strict=True):
            wanted = swapped if k >= 6 else CORNERS
            np.testing.assert_array_equal(corners(from_file), wanted)
            np.testing.assert_allclose(corners(from_set).astype(int), wanted, atol=6)


def set_matrix(path, a, b, c, d):
    """Sets the upper-left 2×2 of an MP4 display matrix: (x, y) is displayed at (a·x + c·y, b·x + d·y)."""
    content = bytearray(pathlib.Path(path).read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    values = (a, b, 0, c, d, 0, 0, 0)
    struct.pack_into(">9i", content, start, *(round(value * ONE) for value in values), 1 << 30)
    pathlib.Path(path).write_bytes(content)


TURNS = {
    "identity": ((1, 0, 0, 1), lambda picture: picture),
    "mirrored horizontally": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "mirrored vertically": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "180 degrees": ((-1, 0, 0, -1), lambda picture: picture[::-1, ::-1]),
    "90 degrees clockwise": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "90 degrees counterclockwise": ((0, -1, 1, 0), lambda picture: np.rot90(picture)),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    "transposed along the other diagonal": ((0, -1, -1, 0), lambda picture: np.rot90(picture, 2).transpose(1, 0, 2)),
    "nearly 90 degrees": ((0.005, 1, -1, 0.005), lambda picture: np.rot90(picture, -1)),
    "zeros": ((0, 0, 0, 0), lambda picture: picture),
    "second column zero": ((1, 0, 0, 0), lambda picture: picture),
    "first column zero": ((0, 1, 0, -1), lambda picture: picture),
}


@pytest.mark.parametrize(("matrix", "turned"), TURNS.values(), ids=TURNS)
def test_display_matrix_rotates_and_mirrors(tmp_path, write_video, matrix, turned):
    path = write_video(tmp_path / "clip.mp4", frames=12, picture=lambda k: quarters())
    set_matrix(path, *matrix)
    assert_shown(path, turned(CORNERS), turned(quarters()).shape[:2], tolerance=12)


def test_other_angles_rotate_the_picture_within_its_size(tmp_path, write_video):
    """A bar right of the centre moves down and toward the centre when rotated clockwise by 30°."""
    bar = np.zeros((48, 64, 3), np.uint8)
    bar[22:26, 32:56] = 255
    path = write_video(tmp_path / "clip.mp4", frames=4, picture=lambda k: bar)
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    set_matrix(path, cos, sin, -sin, cos)
    frame = read(path, 1)[0]
    assert frame.shape == (48, 64, 3)
    assert frame[round(23.5 + 18 * sin), round(31.5 + 18 * cos)].min() > 150
    assert frame[round(23.5 - 18 * sin), round(31.5 + 18 * cos)].max() < 60


def test_clockwise_angle_is_none_for_a_zero_matrix():
    assert display.clockwise_angle((0,) * 9) is None
    assert display.clockwise_angle((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)) == 90


def test_cover_image_is_not_read_as_the_video(numbers):
    path = pathlib.Path(__file__).parent / "cover_first.mp4"  # 24 frames of 64×96 behind a magenta cover of 64×64
    seen = []
    clip = videos.read_clip(str(path), lambda count, fps: seen.append((count, fps)) or np.arange(count))
    assert seen == [(24, 25.0)]
    assert clip.shape == (24, 64, 96, 3)
    assert [frame.shape for frame in stored(path, 0, 23)] == [(64, 96, 3)] * 2
    assert not (np.abs(clip.astype(int) - (255, 0, 255)).max(axis=-1) < 60).all(axis=(1, 2)).any()


def test_file_with_only_a_cover_image_raises(tmp_path):
    path = str(tmp_path / "song.mp4")
    with av.open(path, "w") as container:
        sound = container.add_stream("aac", rate=44100)
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic.value
        container.mux(cover.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        silence.rate = 44100
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    for reader in (read, stored):
        with pytest.raises(videos.DecodeError, match="no video stream in it; its pictures are a cover"):
            reader(path, 0)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("default", [0, 1])
def test_default_track_is_read(tmp_path, suffix, default, grey, numbers):
    path = tmp_path / f"clip{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 64, 48 + 16 * number, "yuv420p"
            stream.disposition = (Disposition.default if number == default else Disposition(0)).value
        for k in range(12):
            for stream in streams:
                picture = av.VideoFrame.from_ndarray(grey(k, stream.height), format="rgb24")
                container.mux(stream.encode(picture))
        for stream in streams:
            container.mux(stream.encode(None))
    clip = read(path, 3, 9)
    assert clip.shape == (2, 48 + 16 * default, 64, 3)
    assert numbers(clip) == [3, 9]
    assert stored(path, 3)[0].shape == clip.shape[1:]


@pytest.mark.parametrize(("aspect", "width"), [((4, 3), 85), ((1, 2), 32), ((1, 1), 64), ((60, 1), 64)])
def test_non_square_pixels_are_resampled_to_square(tmp_path, aspect, width):
    settings = {"sample_aspect_ratio": fractions.Fraction(*aspect)}
    path = write(tmp_path / "clip.mp4", "libx264", "yuv420p", lambda k: quarters(), **settings)
    assert_shown(path, CORNERS, (48, width), tolerance=12)


TRANSPARENT = {
    "png": ("clip.mov", "png", "rgba"),
    "prores": ("clip.mov", "prores_ks", "yuva444p10le"),
    "animation": ("clip.mov", "qtrle", "argb"),
    "ffv1": ("clip.mkv", "ffv1", "bgra"),
    "vp9": ("clip.webm", "libvpx-vp9", "yuva420p"),
    "vp8": ("clip.webm", "libvpx", "yuva420p"),
}


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparent_pixels_are_black(tmp_path, name, codec, pix_fmt):
    alpha = np.array([[0, 255], [128, 255]], np.uint8)
    picture = np.dstack([quarters(), alpha.repeat(24, axis=0).repeat(32, axis=1)])
    settings = {"bit_rate": 2_000_000, "options": {"auto-alt-ref": "0"}} if name == "clip.webm" else {}
    path = write(tmp_path / name, codec, pix_fmt, lambda k: picture, **settings)
    assert_shown(path, CORNERS * (alpha[..., None] / 255), (48, 64), tolerance=12)


@pytest.mark.parametrize("alpha", [0, 255])
def test_unused_bytes_of_uncompressed_frames_are_not_read_as_alpha(tmp_path, alpha):
    picture = np.dstack([quarters(), np.full((48, 64), alpha, np.uint8)])
    path = write(tmp_path / "clip.avi", "rawvideo", "bgra", lambda k: picture)
    assert_shown(path, CORNERS, (48, 64))


def test_all_frames_have_the_size_of_the_first_frame(tmp_path):
    """Clips read after a change of size also have the shape of the first frame, as in the prepared set."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for k in range(12):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height = (64, 48) if k < 6 else (80, 64)
            encoder.pix_fmt, encoder.time_base = "yuvj420p", fractions.Fraction(1, 25)
            picture = av.VideoFrame.from_ndarray(quarters(encoder.height, encoder.width), format="rgb24")
            for packet in encoder.encode(picture.reformat(format="yuvj420p")):
                packet.stream, packet.pts, packet.dts = stream, k, k
                packet.time_base = fractions.Fraction(1, 25)
                container.mux(packet)
    assert_shown(path, CORNERS, (48, 64), tolerance=12)
