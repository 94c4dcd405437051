"""Image and film files. Equal frames give equal pixels; files hold no time stamps."""

import fractions
import io
import os
import pathlib
from collections.abc import Sequence

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

FPS = 6  # slow enough to compare panels


def png(image_YxXx3: UInt8[np.ndarray, "Y X 3"]) -> bytes:
    """Returns one image as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_YxXx3)).save(content, "PNG", optimize=True)
    return content.getvalue()


def _file(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path; its folder is created."""
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def write_png(path: str | os.PathLike[str], image_YxXx3: UInt8[np.ndarray, "Y X 3"]) -> None:
    """Writes one image; its folder is created."""
    file = _file(path)
    file.write_bytes(png(image_YxXx3))


def write_gif(path: str | os.PathLike[str], frames: Sequence[UInt8[np.ndarray, "Y X 3"]], fps: int = FPS) -> None:
    """Writes an endless film of up to 256 colours a frame."""
    file = _file(path)
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    images = [image.quantize(256, dither=Image.Dither.NONE) for image in images]
    images[0].save(file, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0, disposal=1)


def write_mp4(path: str | os.PathLike[str], frames: Sequence[UInt8[np.ndarray, "Y X 3"]], fps: int = FPS) -> None:
    """Writes a film in H.264. Odd sides gain a row or column of white, as H.264 needs even ones."""
    file = _file(path)
    tall, wide = frames[0].shape[:2]
    pad = ((0, tall % 2), (0, wide % 2), (0, 0))
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = tall + tall % 2, wide + wide % 2, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.pad(image, pad, constant_values=255), format="rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
