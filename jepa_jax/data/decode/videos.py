"""Deterministic decoding of RGB video frames with PyAV.

Frames are numbered in presentation order, also at a variable frame rate. If a file has a table of its frames, only the
packets around the requested frames are read; the packets of other files are read once and their index is cached.

The cost of a clip does not depend on the length of its video, with two exceptions that are decoded from the first
frame: AVI files with B-frames, which store no presentation times, and videos with a palette or other decoder state that
a seek would skip.
"""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import av
import av.codec.codec
import av.container
import av.video
import numpy as np
from av.stream import Disposition
from jaxtyping import Int, Shaped, UInt8

from jepa_jax.data import faults
from jepa_jax.data.decode import byte_range, display, frame_table, packet_index
from jepa_jax.data.decode.byte_range import File
from jepa_jax.data.faults import DecodeError
from jepa_jax.data.workers import timing

# Decoders that support transparency; the default ones ignore the alpha channel.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# Decoding up to this many frames costs less than a seek.
SEEK_PAYS = 4

_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
# Some HMDB-51 files have metadata that is not UTF-8, which older versions of PyAV reject by default.
_LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}

_CACHE_BYTES = 64 << 20  # per process; an index takes 8 bytes per frame
_OVERHEAD_BYTES = 1024  # per index, in addition to its arrays

Index = packet_index.PacketIndex | frame_table.FrameTable


class IndexCache:
    """Least recently used cache of video indices, keyed by a file's name, size and modification time. Thread-safe."""

    def __init__(self, limit: int = _CACHE_BYTES):
        """Holds at most `limit` bytes."""
        self._limit, self._used, self._lock = limit, 0, threading.Lock()
        self._indices: collections.OrderedDict[tuple[str, int, int], Index] = collections.OrderedDict()

    def get(self, file: File) -> Index | None:
        """Returns the index of a file if it is cached and the file has not changed, else None."""
        key = byte_range.version(file)
        with self._lock:
            if key in self._indices:
                self._indices.move_to_end(key)
            return self._indices.get(key)

    def put(self, file: File, index: Index) -> None:
        """Adds or replaces the index of a file."""
        key = byte_range.version(file)
        with self._lock:
            if key in self._indices:
                self._used -= self._size(key, self._indices.pop(key))
            self._indices[key] = index
            self._used += self._size(key, index)
            while self._used > self._limit:
                self._used -= self._size(*self._indices.popitem(last=False))

    @staticmethod
    def _size(key: tuple[str, int, int], index: Index) -> int:
        return len(key[0]) + index.nbytes + _OVERHEAD_BYTES


index_cache = IndexCache()

SelectFrames = Callable[[int, float], Int[np.ndarray, "F"]]
"""(frames in the video, frames per second) → non-decreasing indices of the requested frames."""

Transform = Callable[[UInt8[np.ndarray, "Y X 3"]], np.ndarray]
"""Applied to each frame as soon as it is decoded, so that a clip of full-size frames is never held in memory."""


def unchanged(frame_YxXxC: UInt8[np.ndarray, "Y X 3"]) -> UInt8[np.ndarray, "Y X 3"]:
    """The identity `Transform`."""
    return frame_YxXxC


def read_clip(
    file: File,
    select_frames: SelectFrames,
    transform: Transform = unchanged,
    on_stage: timing.OnStage = timing.no_op,
    out: np.ndarray | None = None,
) -> Shaped[np.ndarray, "F _ _ 3"]:
    """Decodes the frames that `select_frames(frame count, fps)` returns, as a player displays them.

    Frames are counted from the container's table or its packets, since headers often have a wrong count or none.
    Decoding starts at the key frame before each requested frame if time stamps are reliable, otherwise at the first
    frame. If fewer frames decode than were counted, `select_frames` is called again with the true count.

    Args:
        file: the video.
        select_frames: (frame count, fps) → indices.
        transform: applied to each frame.
        on_stage: called when decoding starts, after the frames have been counted.
        out: if given, it is filled and returned.

    Raises:
        DecodeError: the file cannot be opened, has no video stream, or a frame up to the last requested one is damaged.
    """
    with faults.as_decode_error(byte_range.name_of(file)):
        with open_video(file) as (container, stream):
            index = _index(file, container, stream)
            wanted = select_frames(index.frames, index.fps)
            on_stage(timing.DECODE)
            frames = _read_by_time(file, container, stream, index, wanted, transform)
        if frames is None:
            frames, count = _read_by_count(file, wanted, transform)
            if count <= wanted[-1]:
                if count == 0:
                    raise DecodeError(
                        byte_range.name_of(file), f"none of its {index.frames} video packets could be decoded"
                    )
                wanted = select_frames(count, index.fps)
                frames, _ = _read_by_count(file, wanted, transform)
        return np.stack([frames[i] for i in wanted.tolist()], out=out)


def index_of(file: File, container: av.container.InputContainer, stream: av.video.VideoStream) -> Index:
    """Indexes a container positioned at its start: from its frame table if it has one, else from its packets."""
    return frame_table.of_table(file, container, stream) or packet_index.of_packets(container, stream)


class Video(NamedTuple):
    """A video read sequentially from its first frame."""

    nominal_frames: int  # by its table or packets: the count that `read_clip` first passes to `select_frames`
    fps: float
    header_frames: int  # by the duration in its header; 0 if it has none
    frames: Iterator[UInt8[np.ndarray, "Y X 3"]]  # numbered as in `read_clip`


@contextlib.contextmanager
def open_frames(file: File) -> Iterator[Video]:
    """Opens a video for reading all of its frames in order.

    Raises:
        DecodeError: as `read_clip`; also raised while iterating over the frames.
    """
    with faults.as_decode_error(byte_range.name_of(file)):
        with open_video(file) as (container, stream):
            index = _index(file, container, stream)
        with open_video(file) as (container, stream):
            to_rgb = _screen(file, stream)
            frames = (to_rgb(frame) for frame in _decoded(file, container, stream))
            yield Video(index.frames, index.fps, round(_header_seconds(container, stream) * index.fps), frames)


def _header_seconds(container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


@contextlib.contextmanager
def open_video(file: File) -> Iterator[tuple[av.container.InputContainer, av.video.VideoStream]]:
    """Opens a file and the stream that a player would show.

    Raises:
        DecodeError: the file has no video stream, or none that can be decoded.
    """
    with av.open(byte_range.url_of(file), **_LENIENT) as container:
        stream = _video_stream(file, container)
        stream.codec_context.thread_count = 1  # parallelism comes from the worker processes
        yield container, stream


def _video_stream(file: File, container: av.container.InputContainer) -> av.video.VideoStream:
    """The stream that a player would show: the first one marked as default, otherwise the first."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _NO_VIDEO]
    if not streams:
        what = "; its pictures are a cover or thumbnails" if container.streams.video else ""
        raise DecodeError(byte_range.name_of(file), f"no video stream in it{what}")
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise DecodeError(byte_range.name_of(file), "no decoder for its video stream")
    return next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])


def _index(file: File, container: av.container.InputContainer, stream: av.video.VideoStream) -> Index:
    index = index_cache.get(file)
    if index is None:
        index = index_of(file, container, stream)
        index_cache.put(file, index)
    if not index.frames:
        raise DecodeError(byte_range.name_of(file), "no video frames in it")
    return index


def _locate(
    file: File,
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    index: Index,
    numbers: list[int],
) -> dict[int, packet_index.Location] | None:
    locations = index.locate(numbers, container, stream)
    if locations is None and isinstance(index, frame_table.FrameTable):
        # The table contradicts the packets, which are correct.
        with open_video(file) as (container, stream):
            index = packet_index.of_packets(container, stream)
            index_cache.put(file, index)
            locations = index.locate(numbers, container, stream)
    return locations


def _read_by_time(
    file: File,
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    index: Index,
    wanted: Int[np.ndarray, "F"],
    transform: Transform,
) -> dict[int, np.ndarray] | None:
    """Finds frames by presentation time, seeking if that is faster; None if one of them is not found."""
    locations = _locate(file, container, stream, index, np.unique(wanted).tolist())
    if locations is None:
        return None
    to_rgb = _screen(file, stream)
    frames = {}
    decoder, reached = iter(()), None
    for i, location in locations.items():
        if reached is None or location.key > reached + SEEK_PAYS:
            container.seek(location.key_time, stream=stream)
            decoder = _decoded(file, container, stream)
        frame = next((frame for frame in decoder if frame.pts is not None and frame.pts >= location.time), None)
        if frame is None or frame.pts != location.time:
            return None
        reached = i
        frames[i] = transform(to_rgb(frame))
    return frames


def _read_by_count(file: File, wanted: Int[np.ndarray, "F"], transform: Transform) -> tuple[dict[int, np.ndarray], int]:
    """Finds frames by counting from the first; also returns how many were decoded, at most up to the last requested."""
    frames = {}
    picked, last = set(wanted.tolist()), int(wanted[-1])
    count = 0
    with open_video(file) as (container, stream):
        to_rgb = _screen(file, stream)
        for frame in _decoded(file, container, stream):
            if count in picked:
                frames[count] = transform(to_rgb(frame))
            count += 1
            if count > last:
                break
    return frames, count


def _decoded(
    file: File, container: av.container.InputContainer, stream: av.video.VideoStream
) -> Iterator[av.video.VideoFrame]:
    """Decodes frames from the container's current position."""
    decoder = ALPHA_DECODERS.get(stream.codec_context.name)
    if decoder is None or stream.metadata.get("alpha_mode") != "1":
        yield from container.decode(stream)
        return
    try:
        context = av.CodecContext.create(decoder, "r")
    except av.codec.codec.UnknownCodecError as error:
        raise DecodeError(
            byte_range.name_of(file), f"transparent {stream.codec_context.name} video, which needs {decoder}"
        ) from error
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    for packet in container.demux(stream):
        yield from context.decode(packet)


def _screen(file: File, stream: av.video.VideoStream) -> display.Screen:
    def first_size() -> tuple[int, int]:
        with open_video(file) as (container, stream):
            first = next(_decoded(file, container, stream))
            return first.width, first.height

    return display.Screen(stream, first_size)
