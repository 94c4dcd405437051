"""Tiny clips, encoded on the spot: frame k is a grey of level 8·k + 8, so a decoded frame tells its number."""

import fractions
import os
import pathlib

import av
import numpy as np
import pytest
from PIL import Image

CODECS = {".avi": "mpeg4", ".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".mpg": "mpeg1video"}


def _grey(number, height=48, width=64):
    return np.full((height, width, 3), 8 * number + 8, np.uint8)


def _numbers(frames):
    return np.rint((frames.reshape(len(frames), -1).mean(axis=1) - 8) / 8).astype(int).tolist()


def _write_video(path, frames=24, fps=25, gop=6, codec=None, times=None, sound=False, picture=_grey):
    """`times`: presentation time of each frame in 1/1000 s, for a variable rate."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix], rate=fps)
        stream.height, stream.width = picture(0).shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 400_000
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = fractions.Fraction(1, 1000)
        audio = container.add_stream("mp2", rate=44100) if sound else None
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[k], fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * 2), np.int16), format="s16", layout="stereo")
            silence.rate = 44100
            container.mux(audio.encode(silence))
            container.mux(audio.encode(None))
    return str(path)


@pytest.fixture(scope="session")
def grey():
    """grey(k): the picture of frame k."""
    return _grey


@pytest.fixture(scope="session")
def numbers():
    """numbers(frames): which frame each of these is."""
    return _numbers


@pytest.fixture(scope="session")
def write_video():
    """write_video(path, frames=24, …): encodes a video, returns its path as a string."""
    return _write_video


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of eight readable videos in two classes: a (5 clips, of 24 frames) and b (3 clips, of 4 frames)."""
    folder = tmp_path_factory.mktemp("clips")
    for k in range(5):
        _write_video(folder / "a" / f"{k}.mp4")
    for k in range(3):
        _write_video(folder / "b" / f"{k} with space.avi", frames=4)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of six images in two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(6):
        path = folder / "xy"[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(_grey(k)).save(path)
    return folder


@pytest.fixture(scope="session")
def real_data():
    """Real clips, which the project does not ship: the folder named by JEPA_TEST_DATA."""
    folder = os.environ.get("JEPA_TEST_DATA")
    if not folder:
        pytest.skip("JEPA_TEST_DATA names no folder of real clips")
    return pathlib.Path(folder)
