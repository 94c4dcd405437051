"""Frame counts and presentation times from the frame table that MP4, MOV and most AVI files have."""

import bisect
import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import av
import av.container
import av.packet
import av.video
import numpy as np
from jaxtyping import Int64

from jepa_jax.data.decode import byte_range, packet_index
from jepa_jax.data.decode.byte_range import File
from jepa_jax.data.decode.packet_index import Location

_TABLE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "avi")


@dataclasses.dataclass(frozen=True)
class FrameTable:
    """A container's table of its frames, in storage order."""

    frames: int
    fps: float
    keys: Int64[np.ndarray, "K"]  # indices of the key frames in that order

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.keys.nbytes

    def locate(
        self, wanted: Iterable[int], container: av.container.InputContainer, stream: av.video.VideoStream
    ) -> dict[int, Location] | None:
        """Locates each wanted frame; None if one can only be found by counting from the first frame.

        A table has no presentation times, so this reads the packets from the key frame before each wanted frame to the
        second key frame after it. The container must be at its start. Frames stored before a key frame are shown before
        it; a few of those stored after it may be shown before it too.
        """
        groups = _Groups(self, container, stream)
        try:
            return {i: groups.locate(i) for i in wanted}
        except _UnexpectedPacketError:
            return None


def of_table(file: File, container: av.container.InputContainer, stream: av.video.VideoStream) -> FrameTable | None:
    """Reads the frame table; None if it is missing, incomplete, or not a plain list of displayed frames."""
    # Edit lists hide frames, AVI files do not store when B-frames are shown, and a palette may change anywhere.
    if container.format.name not in _TABLE_FORMATS or stream.codec_context.pix_fmt == "pal8":
        return None
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        return None
    entries = [(e.timestamp, e.pos, e.size, e.is_keyframe, e.is_discard) for e in stream.index_entries]
    if not entries or len(entries) != stream.frames:
        return None
    times, positions, sizes, are_keys, are_hidden = np.array(entries, np.int64).T
    keys = np.flatnonzero(are_keys)
    is_list = are_keys[0] and (np.diff(times) > 0).all() and (sizes > 0).all() and not are_hidden.any()
    if not is_list or (positions + sizes).max() > container.size or _is_fragmented(file):
        return None
    measured = packet_index.measured_fps(stream, len(entries), int(times[-1] - times[0]))
    fps = packet_index.header_fps(packet_index.header_rates(stream), measured)
    return None if fps is None else FrameTable(len(entries), fps, keys)


class _UnexpectedPacketError(Exception):
    """A packet contradicts the frame table, or the presentation times do not order the frames."""


class _Group(NamedTuple):
    """Sorted presentation times of the frames stored from one key frame up to the next."""

    before_key: list[int]  # shown before the key frame, though stored after it
    from_key: list[int]


class _Groups:
    """The frames of a table, read one group at a time. Each packet is read once."""

    def __init__(self, table: FrameTable, container: av.container.InputContainer, stream: av.video.VideoStream):
        self._container, self._stream, self._entries = container, stream, stream.index_entries
        self._starts = [*table.keys.tolist(), table.frames]
        self._packets: Iterator[av.packet.Packet] = container.demux(stream)
        self._position = 0  # of the next packet
        self._times: dict[int, int] = {}  # position → presentation time
        self._keys: set[int] = set()  # positions of packets that are key frames
        self._groups: dict[int, _Group] = {}
        self._time(0)  # the packet that carries what the decoder needs for the whole stream

    def locate(self, i: int) -> Location:
        """Locates frame i."""
        last = len(self._starts) - 2
        g = bisect.bisect_right(self._starts, i, hi=last + 1) - 1
        if i < self._rank(g):
            g -= 1
        if g < 0:
            raise _UnexpectedPacketError
        shown = self._group(g).from_key
        if g < last:
            following = self._group(g + 1)
            if shown[-1] >= following.from_key[0] or any(time <= shown[0] for time in following.before_key):
                raise _UnexpectedPacketError
            shown = sorted(shown + following.before_key)
        if len(set(shown)) < len(shown):
            raise _UnexpectedPacketError
        key = self._rank(g)
        return Location(shown[i - key], key, shown[0])

    def _rank(self, g: int) -> int:
        """The number of a group's key frame."""
        return self._starts[g] + len(self._group(g).before_key)

    def _group(self, g: int) -> _Group:
        if g not in self._groups:
            positions = range(self._starts[g], self._starts[g + 1])
            times = [self._time(position) for position in positions]
            if self._keys.intersection(positions) != {positions[0]}:
                raise _UnexpectedPacketError
            before = sorted(time for time in times if time < times[0])
            self._groups[g] = _Group(before, sorted(time for time in times if time >= times[0]))
        return self._groups[g]

    def _time(self, position: int) -> int:
        if position not in self._times:
            if position != self._position:
                self._container.seek(self._entries[position].timestamp, stream=self._stream)
                self._packets = self._container.demux(self._stream)
            self._times[position] = self._read(position)
            self._position = position + 1
        return self._times[position]

    def _read(self, position: int) -> int:
        """The presentation time of the packet at `position`; skips the earlier ones that a seek may land on."""
        entry = self._entries[position]
        packet = next((packet for packet in self._packets if not packet.size or packet.dts == entry.timestamp), None)
        if packet is None or not packet.size or packet.pts is None:
            raise _UnexpectedPacketError
        if packet.is_discard or packet_index.changes_decoder(packet):
            raise _UnexpectedPacketError
        if packet.is_keyframe:
            self._keys.add(position)
        return packet.pts


def _is_fragmented(file: File) -> bool:
    """Whether an MP4 file has frames that its header does not list: it then has a top-level `moof` box."""
    where = byte_range.locate(file)
    with open(where.container, "rb") as opened:
        start = 0
        while start + 8 <= where.size:
            opened.seek(where.start + start)
            header = opened.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            if name == b"moof":
                return True
            length = int.from_bytes(header[8:], "big") if length == 1 else length
            if length < 8:  # 0: the box extends to the end of the file
                return False
            start += length
    return False
