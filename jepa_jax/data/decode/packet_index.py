"""Frame counts and presentation times from a video's packets, without decoding."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import av
import av.container
import av.packet
import av.video
import numpy as np
from jaxtyping import Int64

# Header frame rates outside this range may be placeholders (1000 or 90000 ticks per second).
PLAUSIBLE_FPS = (1.0, 250.0)
# Such a rate is accepted if it is within this fraction of the rate measured from time stamps.
FPS_TOLERANCE = 0.1
# Side data of one packet that the decoder needs for all later ones; a seek would skip it.
DECODER_STATE = ("palette", "new_extradata", "param_change")


class Location(NamedTuple):
    """Where to find a frame."""

    time: int  # its presentation time
    key: int  # the number of the key frame to decode from
    key_time: int


@dataclasses.dataclass(frozen=True)
class PacketIndex:
    """Frame count, rate, times and key frames of a video, from all of its packets."""

    frames: int  # damaged and packed streams decode to fewer frames
    fps: float  # mean rate
    times: Int64[np.ndarray, "F"] | None  # sorted presentation times; None if they do not identify frames
    keys: Int64[np.ndarray, "K"]  # indices of the frames that can be decoded on their own

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.keys.nbytes + (0 if self.times is None else self.times.nbytes)

    def locate(
        self, wanted: Iterable[int], container: av.container.InputContainer, stream: av.video.VideoStream
    ) -> dict[int, Location] | None:
        """Locates each wanted frame; None if one can only be found by counting from the first frame. Reads nothing."""
        del container, stream
        locations = {}
        for i in wanted:
            if self.times is None or i >= self.frames:
                return None
            before = int(np.searchsorted(self.keys, i, side="right")) - 1
            key = int(self.keys[before]) if before >= 0 else 0  # decoded from a key frame that an edit list hides
            locations[i] = Location(int(self.times[i]), key, int(self.times[key]))
        return locations


def of_packets(container: av.container.InputContainer, stream: av.video.VideoStream) -> PacketIndex:
    """Builds the index from all packets of a container, which must be at its start."""
    times, key_times, changes = [], [], False
    for packet in container.demux(stream):
        # An empty packet marks the end; a discarded one holds a frame cut away by an edit list.
        if packet.size and not packet.is_discard:
            times.append(packet.pts)
            if packet.is_keyframe:
                key_times.append(packet.pts)
        changes = changes or changes_decoder(packet)
    # AVI stores no presentation times, so those of B-frames are guesses.
    guessed = container.format.name == "avi" and stream.codec_context.has_b_frames
    if not times or guessed or None in times or len(set(times)) < len(times):
        fps = mean_fps(header_rates(stream), measured_fps(stream, len(times), None))
        return PacketIndex(len(times), fps, None, np.zeros(0, np.int64))
    times_F = np.sort(np.array(times, np.int64))
    keys = np.searchsorted(times_F, np.sort(np.array(key_times, np.int64)))
    fps = mean_fps(header_rates(stream), measured_fps(stream, len(times), int(times_F[-1] - times_F[0])))
    return PacketIndex(len(times), fps, None if changes else times_F, keys)


def changes_decoder(packet: av.packet.Packet) -> bool:
    """Whether the packet carries something that later packets need."""
    return any(packet.has_sidedata(kind) for kind in DECODER_STATE)


def mean_fps(header: Iterable[float], measured: float) -> float:
    """Mean frames per second: the first credible header rate, otherwise the measured rate."""
    rate = header_fps(header, measured)
    if rate is not None:
        return rate
    if PLAUSIBLE_FPS[0] <= measured <= PLAUSIBLE_FPS[1]:
        return round(measured, 2)  # so that rounded time stamps do not turn 30 into 30.0004: rates are rounded up later
    return 25.0  # nothing is known (a single frame, for example); any value is arbitrary


def header_fps(header: Iterable[float], measured: float) -> float | None:
    """The first header rate that is plausible or close to the measured one; None if there is none."""
    low, high = PLAUSIBLE_FPS
    for rate in header:
        if low <= rate <= high or abs(rate - measured) <= FPS_TOLERANCE * measured:
            return rate
    return None


def header_rates(stream: av.video.VideoStream) -> list[float]:
    """The frame rates in a stream's header, most reliable first."""
    return [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]


def measured_fps(stream: av.video.VideoStream, count: int, span: int | None) -> float:
    """The rate from the time between first and last frame, or from the stream's duration; 0 if neither is known."""
    ticks = span * count / (count - 1) if span and count > 1 else stream.duration
    return count / (ticks * float(stream.time_base)) if ticks and stream.time_base else 0.0
