"""What is shown of a video: the right stream, upright, square pixels, right colours. File and prepared set agree."""

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
"""Colours of the four quarters of a picture."""


def quarters(height=48, width=64):
    return CORNERS.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def corners(frame):
    """The colours in the middle of the four quarters."""
    height, width, _ = frame.shape
    return frame[np.ix_((height // 4, 3 * height // 4), (width // 4, 3 * width // 4))]


def read(path, *wanted):
    return videos.read_clip(str(path), lambda count, fps: np.array(wanted))


def stored(path, *wanted):
    """The same frames out of a prepared set."""
    jpegs = frames.of_video(str(path), frames.JpegSettings(short_side=256, quality=95)).frames
    return [array_record.decode_jpeg(jpegs[i]) for i in wanted]


def assert_shown(path, wanted, shape, count=12, tolerance=6):
    """Single frames, frames after seeks and frames of a prepared set all show these colours."""
    seen = []
    videos.read_clip(str(path), lambda frames, fps: seen.append(frames) or np.array([0]))
    assert seen == [count]
    for chosen in ([0], [count - 1], [2, count // 2, count - 1]):
        for frame in (*read(path, *chosen), *stored(path, *chosen)):
            assert frame.shape == (*shape, 3)
            np.testing.assert_allclose(corners(frame).astype(int), wanted, atol=tolerance)


def write(path, codec, pix_fmt, picture, count=12, **settings):
    """Encodes `picture(k)`: a frame, or an array of RGBA or RGB."""
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
def test_a_palette_that_is_handed_out_once_colours_every_frame(tmp_path, suffix):
    path = write(tmp_path / f"palette{suffix}", "rawvideo", "pal8", lambda k: palette_picture(False))
    assert_shown(path, CORNERS, (48, 64))


def test_a_palette_may_change(tmp_path):
    path = write(tmp_path / "palette.avi", "rawvideo", "pal8", lambda k: palette_picture(k >= 6))
    swapped = np.stack([CORNERS[0, ::-1], CORNERS[1]])
    for chosen in ([5, 6], [11], [7, 11], [0]):
        for k, from_file, from_set in zip(chosen, read(path, *chosen), stored(path, *chosen), strict=True):
            wanted = swapped if k >= 6 else CORNERS
            np.testing.assert_array_equal(corners(from_file), wanted)
            np.testing.assert_allclose(corners(from_set).astype(int), wanted, atol=6)


def set_matrix(path, a, b, c, d):
    """Writes the upper left of the display matrix of an MP4 file: (x, y) is shown at (a·x + c·y, b·x + d·y)."""
    content = bytearray(pathlib.Path(path).read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    values = (a, b, 0, c, d, 0, 0, 0)
    struct.pack_into(">9i", content, start, *(round(value * ONE) for value in values), 1 << 30)
    pathlib.Path(path).write_bytes(content)


TURNS = {
    "as it is": ((1, 0, 0, 1), lambda picture: picture),
    "mirrored sideways": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "upside down, mirrored": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda picture: picture[::-1, ::-1]),
    "a quarter clockwise": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "a quarter anticlockwise": ((0, -1, 1, 0), lambda picture: np.rot90(picture)),
    "rows and columns swapped": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    "swapped the other way": ((0, -1, -1, 0), lambda picture: np.rot90(picture, 2).transpose(1, 0, 2)),
    "nearly a quarter": ((0.005, 1, -1, 0.005), lambda picture: np.rot90(picture, -1)),
    "zeros": ((0, 0, 0, 0), lambda picture: picture),
    "a column of zeros": ((1, 0, 0, 0), lambda picture: picture),
    "the other column of zeros": ((0, 1, 0, -1), lambda picture: picture),
}


@pytest.mark.parametrize(("matrix", "turned"), TURNS.values(), ids=TURNS)
def test_the_display_matrix_turns_and_mirrors(tmp_path, write_video, matrix, turned):
    path = write_video(tmp_path / "clip.mp4", frames=12, picture=lambda k: quarters())
    set_matrix(path, *matrix)
    assert_shown(path, turned(CORNERS), turned(quarters()).shape[:2], tolerance=12)


def test_other_angles_turn_the_picture_within_its_size(tmp_path, write_video):
    """A point right of the middle moves clockwise: 30° on, it is below and nearer to the middle."""
    bar = np.zeros((48, 64, 3), np.uint8)
    bar[22:26, 32:56] = 255
    path = write_video(tmp_path / "clip.mp4", frames=4, picture=lambda k: bar)
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    set_matrix(path, cos, sin, -sin, cos)
    frame = read(path, 1)[0]
    assert frame.shape == (48, 64, 3)
    assert frame[round(23.5 + 18 * sin), round(31.5 + 18 * cos)].min() > 150
    assert frame[round(23.5 - 18 * sin), round(31.5 + 18 * cos)].max() < 60


def test_no_angle_of_a_matrix_that_has_none():
    assert display.clockwise_angle((0,) * 9) is None
    assert display.clockwise_angle((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)) == 90


def test_a_cover_is_not_the_video(numbers):
    path = pathlib.Path(__file__).parent / "cover_first.mp4"  # 24 frames of 64×96 behind a magenta cover of 64×64
    seen = []
    clip = videos.read_clip(str(path), lambda count, fps: seen.append((count, fps)) or np.arange(count))
    assert seen == [(24, 25.0)]
    assert clip.shape == (24, 64, 96, 3)
    assert [frame.shape for frame in stored(path, 0, 23)] == [(64, 96, 3)] * 2
    assert not (np.abs(clip.astype(int) - (255, 0, 255)).max(axis=-1) < 60).all(axis=(1, 2)).any()


def test_a_file_with_a_cover_alone_has_no_video(tmp_path):
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
def test_the_default_track_is_the_video(tmp_path, suffix, default, grey, numbers):
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
def test_pixels_are_shown_square(tmp_path, aspect, width):
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
def test_unused_bytes_of_uncompressed_frames_are_no_transparency(tmp_path, alpha):
    picture = np.dstack([quarters(), np.full((48, 64), alpha, np.uint8)])
    path = write(tmp_path / "clip.avi", "rawvideo", "bgra", lambda k: picture)
    assert_shown(path, CORNERS, (48, 64))


def test_frames_have_the_size_of_the_first_of_the_video(tmp_path):
    """Read from anywhere: a clip after the change of size has the shape that the prepared set has."""
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
