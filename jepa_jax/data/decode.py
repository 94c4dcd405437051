"""Files → RGB frames: windows of videos by PyAV, still images by Pillow. No randomness, no resizing."""

import bisect
import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import av
import av.container
import av.error
import av.video
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Int, Shaped, UInt8
from PIL import Image, ImageOps

from jepa_jax.data import stages

# Header frame rates outside this range are placeholders (1000 or 90000 ticks a second), not rates.
PLAUSIBLE_FPS = (1.0, 250.0)
# Decoding this many frames costs less than a seek.
SEEK_PAYS = 4

Choose = Callable[[int, float], Int[np.ndarray, "F"]]
"""(frames in the video, frames a second) → non-decreasing indices of the frames wanted."""


Transform = Callable[[UInt8[np.ndarray, "Y X 3"]], np.ndarray]
"""What becomes of each frame as soon as it is decoded, so that no clip of whole frames is ever held."""


class DecodeError(Exception):
    """A file that gives no picture: `path` and the `reason`."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)  # both kept as arguments, so that the error survives pickling
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _Index(NamedTuple):
    """What the packets of a stream say, without decoding them."""

    frames: int
    fps: float
    times: list[int] | None  # presentation times in order; None where they do not identify frames
    keys: list[int]  # indices of the frames that can be decoded without another


def whole(frame_YxXxC: UInt8[np.ndarray, "Y X 3"]) -> UInt8[np.ndarray, "Y X 3"]:
    """The `Transform` that changes nothing."""
    return frame_YxXxC


def read_clip(
    path: str,
    choose: Choose,
    transform: Transform = whole,
    switch: stages.Switch = stages.unwatched,
    out: np.ndarray | None = None,
) -> Shaped[np.ndarray, "F _ _ 3"]:
    """The frames of a video that `choose(frame count, fps)` asks for: upright RGB, each put through `transform`.

    `switch` is told when the packets have been read and decoding starts; `out` is filled and returned, if given.

    Packets are counted first, since headers often lie about the number of frames or leave it out. Decoding starts from
    the key frame before each wanted frame where time stamps can be trusted, otherwise from the first frame; a stream
    that turns out shorter than its packets promise is asked about again with the true count.

    Raises:
        DecodeError: the file cannot be opened, has no video stream, or a frame up to the last one wanted is damaged.
    """
    try:
        with _opened(path) as (container, stream):
            index = _index(path, container, stream)
            wanted = choose(index.frames, index.fps)
            switch(stages.DECODE)
            frames = _read_by_time(container, stream, index, wanted, transform)
        if frames is None:
            frames, count = _read_by_count(path, wanted, transform)
            if count <= wanted[-1]:
                if count == 0:
                    raise DecodeError(path, f"none of its {index.frames} video packets could be decoded")
                wanted = choose(count, index.fps)
                frames, _ = _read_by_count(path, wanted, transform)
    except av.error.FFmpegError as error:
        raise DecodeError(path, _reason(path, error)) from error
    return np.stack([frames[i] for i in wanted.tolist()], out=out)


class Video(NamedTuple):
    """A video that is being read from its first frame to its last."""

    promised: int  # frames, by its packets: what `read_clip` asks `choose` about first
    fps: float
    announced: int  # frames, by the length that its header gives; 0 if that says nothing
    frames: Iterator[UInt8[np.ndarray, "Y X 3"]]  # frame i is what `read_clip` calls i


@contextlib.contextmanager
def every_frame(path: str) -> Iterator[Video]:
    """All of a video.

    Raises:
        DecodeError: as `read_clip`, also while the frames are gone through.
    """
    try:
        with _opened(path) as (container, stream):
            index = _index(path, container, stream)
        with _opened(path) as (container, stream):
            to_rgb = _Converter()
            frames = (to_rgb(frame) for frame in container.decode(stream))
            yield Video(index.frames, index.fps, round(_announced_seconds(container, stream) * index.fps), frames)
    except av.error.FFmpegError as error:
        raise DecodeError(path, _reason(path, error)) from error


def _announced_seconds(container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def read_image(path: str, content: bytes | None = None) -> UInt8[np.ndarray, "Y X 3"]:
    """A still image as RGB, turned upright if its EXIF data says so; `content` is the file if it has been read already.

    Raises:
        DecodeError: the file cannot be opened or is no whole image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata does not matter as long as the pixels decode
            with Image.open(path if content is None else io.BytesIO(content)) as image:
                return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DecodeError(path, _reason(path, error)) from error


def _reason(path: str, error: BaseException) -> str:
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "the file is empty"
    log = getattr(error, "log", None)
    detail = f" ({log[2].strip()})" if log else ""
    return f"{getattr(error, 'strerror', None) or error or type(error).__name__}{detail}"


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[av.container.InputContainer, av.video.VideoStream]]:
    # Some HMDB-51 files hold metadata that is not UTF-8.
    with av.open(path, metadata_errors="ignore") as container:
        if not container.streams.video:
            raise DecodeError(path, "no video stream in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise DecodeError(path, "no decoder for its video stream")
        stream.codec_context.thread_count = 1  # parallelism comes from the worker processes
        yield container, stream


def _index(path: str, container: av.container.InputContainer, stream: av.video.VideoStream) -> _Index:
    times, key_times = [], []
    for packet in container.demux(stream):
        # An empty packet marks the end; a discarded one holds a frame cut away by an edit list.
        if packet.size and not packet.is_discard:
            times.append(packet.pts)
            if packet.is_keyframe:
                key_times.append(packet.pts)
    if not times:
        raise DecodeError(path, "no video frames in it")
    # AVI stores no presentation times: those of B-frames are guesses.
    guessed = container.format.name == "avi" and stream.codec_context.has_b_frames
    if guessed or None in times or len(set(times)) < len(times):
        return _Index(len(times), _fps(stream, None, len(times)), None, [])
    times.sort()
    keys = sorted(bisect.bisect_left(times, time) for time in key_times)
    return _Index(len(times), _fps(stream, times, len(times)), times, keys)


def _fps(stream: av.video.VideoStream, times: Sequence[int] | None, count: int) -> float:
    """Mean frames a second: of the header where plausible, otherwise from time stamps or the stream's duration."""
    low, high = PLAUSIBLE_FPS
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and low <= rate <= high:
            return float(rate)
    span = (max(times) - min(times)) * count / (count - 1) if times and count > 1 else stream.duration
    if span and stream.time_base and low <= (rate := count / float(span * stream.time_base)) <= high:
        return round(rate, 2)  # rounded time stamps must not make 30.0004 of 30: rates are rounded up later
    return 25.0  # no clue at all: any choice is arbitrary, and a single frame has no rate


def _read_by_time(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    index: _Index,
    wanted: Int[np.ndarray, "F"],
    transform: Transform,
) -> dict[int, np.ndarray] | None:
    """Wanted frames found by their presentation times, seeking where that pays; None if one does not turn up."""
    if index.times is None:
        return None
    to_rgb = _Converter()
    frames = {}
    decoder, reached = iter(()), None
    for i in np.unique(wanted).tolist():
        before = bisect.bisect_right(index.keys, i) - 1
        if before < 0:
            return None
        key = index.keys[before]
        if reached is None or key > reached + SEEK_PAYS:
            container.seek(index.times[key], stream=stream)
            decoder = container.decode(stream)
        time = index.times[i]
        frame = next((frame for frame in decoder if frame.pts is not None and frame.pts >= time), None)
        if frame is None or frame.pts != time:
            return None
        reached = i
        frames[i] = transform(to_rgb(frame))
    return frames


def _read_by_count(path: str, wanted: Int[np.ndarray, "F"], transform: Transform) -> tuple[dict[int, np.ndarray], int]:
    """Wanted frames found by counting from the first, and how many frames were seen up to the last one wanted."""
    to_rgb = _Converter()
    frames = {}
    picked, last = set(wanted.tolist()), int(wanted[-1])
    count = 0
    with _opened(path) as (container, stream):
        for frame in container.decode(stream):
            if count in picked:
                frames[count] = transform(to_rgb(frame))
            count += 1
            if count > last:
                break
    return frames, count


class _Converter:
    """Decoded frames to RGB arrays, all of the size of the first, turned as the file says they are shown."""

    def __init__(self):
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame
        self._size = None

    def __call__(self, frame: av.video.VideoFrame) -> UInt8[np.ndarray, "Y X 3"]:
        width, height = self._size = self._size or (frame.width, frame.height)
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.rot90(rgb, turns) if turns else rgb
