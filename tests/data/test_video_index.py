"""Bytes read per clip, frame numbers in all containers, and frame rates."""

import contextlib
import fractions
import io
import os

import av
import numpy as np
import pytest

from jepa_jax.data.decode import frame_table, packet_index, videos

SHORT, LONG = 100, 800


def noise(k):
    """Returns an image for k that is hard to compress; equal k give equal images."""
    return np.random.default_rng(k).integers(0, 255, (48, 64, 3), np.uint8)


def moving(k):
    return np.random.default_rng(0).integers(0, 255, (48, 300, 3), np.uint8)[:, 2 * k : 2 * k + 64]


def write(
    path, count=24, codec="libx264", picture=moving, rate=25, bit_rate=400_000, container_options=None, **options
):
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.bit_rate = bit_rate
        for k in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(k), format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


@pytest.fixture
def fresh_memory(monkeypatch):
    """Starts with an empty index cache, as in a new process."""
    monkeypatch.setattr(videos, "index_cache", videos.IndexCache())


def index_of(path):
    with videos.open_video(path) as (container, stream):
        return videos.index_of(path, container, stream)


def read(path, *wanted):
    return videos.read_clip(path, lambda count, fps: np.array(wanted))


def every(path):
    with videos.open_frames(path) as video:
        return list(video.frames)


class CountingFile(io.FileIO):
    """A file that counts the bytes read from it."""

    count = 0

    def read(self, size=-1):
        content = super().read(size)
        self.count += len(content)
        return content


@pytest.fixture
def bytes_read(monkeypatch):
    """bytes_read(path, *frames) returns the bytes of the file that are read for one clip."""
    av_open = av.open

    def measure(path, *wanted):
        with contextlib.ExitStack() as opened, monkeypatch.context() as patch:
            files = []

            def counted(file, **settings):
                files.append(opened.enter_context(CountingFile(file.removeprefix("file:"))))
                return av_open(files[-1], **settings)

            patch.setattr(av, "open", counted)
            read(path, *wanted)
            return sum(file.count for file in files)

    return measure


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("suffix", "codec", "listed"),
    [(".mp4", "libx264", True), (".mov", "mpeg4", True), (".avi", "mpeg4", True), (".mkv", "libx264", False)],
)
def test_clip_costs_the_same_bytes_in_a_long_video(tmp_path, suffix, codec, listed, place, bytes_read, fresh_memory):
    cost = {}
    for count in (SHORT, LONG):
        path = write(tmp_path / f"{count}{suffix}", count, codec, noise, bit_rate=2_000_000, g="6")
        start = int(place * (count - 8))
        if not listed:
            assert bytes_read(path, start) >= os.path.getsize(path)  # the first read indexes the whole file
        cost[count] = bytes_read(path, *range(start, start + 8))
    assert os.path.getsize(path) > 2_000_000
    assert cost[LONG] < 0.15 * os.path.getsize(path)
    assert cost[LONG] < 1.5 * cost[SHORT]


STREAMS = {
    "closed GOPs": {"bf": "3", "g": "8"},
    "open GOPs": {"bf": "3", "g": "8", "x264-params": "open-gop=1"},
    "one GOP": {"bf": "2", "g": "1000"},
    "only key frames": {"g": "1"},
    "B-frames reference B-frames": {"bf": "5", "g": "24", "x264-params": "b-pyramid=normal"},
}


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS)
def test_every_frame_is_found_by_its_number(tmp_path, suffix, options):
    path = write(tmp_path / f"clip{suffix}", 40, **options)
    frames = every(path)
    index = index_of(path)
    assert isinstance(index, frame_table.FrameTable) == (suffix in (".mp4", ".mov"))
    with videos.open_video(path) as (container, stream):
        by_packets = packet_index.of_packets(container, stream)
    with videos.open_video(path) as (container, stream):
        assert index.locate(range(40), container, stream) == by_packets.locate(range(40), container, stream)
    assert (index.frames, index.fps) == (by_packets.frames, by_packets.fps) == (40, 25.0)
    for k in range(40):
        np.testing.assert_array_equal(read(path, k)[0], frames[k])
    for frame, k in zip(read(path, 1, 7, 8, 25, 39), (1, 7, 8, 25, 39), strict=True):
        np.testing.assert_array_equal(frame, frames[k])


def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path):
    """A video that is cut without re-encoding starts with hidden frames, including the key frame."""
    whole = write(tmp_path / "whole.mp4", 40, bf="0", g="10")
    path = tmp_path / "cut.mp4"
    content = bytearray((tmp_path / "whole.mp4").read_bytes())
    start = content.index(b"elst") + 12  # its only entry: duration, first time, rate
    with av.open(whole) as container:
        ticks = 1 / (container.streams.video[0].time_base * 25)
    content[start + 4 : start + 8] = int(4 * ticks).to_bytes(4, "big")
    path.write_bytes(content)
    assert isinstance(index_of(str(path)), packet_index.PacketIndex)
    frames = every(whole)
    seen = []
    videos.read_clip(str(path), lambda count, fps: seen.append(count) or np.array([0]))
    assert seen == [36]
    for k in (0, 3, 5, 6, 20, 35):
        np.testing.assert_array_equal(read(str(path), k)[0], frames[k + 4])


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe"])
def test_fragmented_files_are_indexed(tmp_path, flags):
    path = write(tmp_path / "clip.mp4", 40, container_options={"movflags": flags}, g="8")
    assert isinstance(index_of(path), packet_index.PacketIndex)
    frames = every(path)
    assert len(frames) == 40
    for k in (0, 9, 39):
        np.testing.assert_array_equal(read(path, k)[0], frames[k])


def test_frame_table_of_a_truncated_file_is_not_used(tmp_path):
    path = tmp_path / "clip.mp4"
    write(path, 60, picture=noise, container_options={"movflags": "faststart"}, g="6", bf="0")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert isinstance(index_of(str(path)), packet_index.PacketIndex)
    clip = videos.read_clip(str(path), lambda count, fps: np.arange(count - 2))  # the last frame may be truncated
    assert 15 < len(clip) < 45


def test_frame_table_that_contradicts_packets_is_not_used(tmp_path, fresh_memory):
    """The table lists a frame as a key frame that is not one."""
    path = tmp_path / "clip.mp4"
    write(path, 24, bf="0", g="6")
    index = index_of(str(path))
    with videos.open_video(str(path)) as (container, stream):
        wrong = frame_table.FrameTable(index.frames, index.fps, np.array([0, 5, 12, 18]))
        assert wrong.locate([7], container, stream) is None
    videos.index_cache.put(str(path), wrong)
    np.testing.assert_array_equal(read(str(path), 7)[0], every(str(path))[7])
    assert isinstance(videos.index_cache.get(str(path)), packet_index.PacketIndex)


def test_changed_file_is_indexed_again(tmp_path, write_video, numbers):
    path = write_video(tmp_path / "clip.mkv", frames=24)
    assert numbers(read(path, 20)) == [20]
    write_video(tmp_path / "clip.mkv", frames=12)
    seen = []
    videos.read_clip(path, lambda count, fps: seen.append(count) or np.array([0]))
    assert seen == [12]


def test_index_cache_has_a_size_limit(tmp_path):
    memory = videos.IndexCache(limit=25_000)
    paths = [str(tmp_path / f"{number}.mkv") for number in range(4)]
    for path in paths:
        open(path, "wb").close()
        memory.put(path, packet_index.PacketIndex(1000, 25.0, np.arange(1000), np.arange(10)))
        memory.get(paths[0])
    assert [memory.get(path) is not None for path in paths] == [True, False, False, True]
    memory.put(paths[3], packet_index.PacketIndex(10, 25.0, None, np.arange(0)))
    memory.put(paths[1], packet_index.PacketIndex(1000, 25.0, np.arange(1000), np.arange(10)))
    assert [memory.get(path) is not None for path in paths] == [True, True, False, True]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [fractions.Fraction(1, 2), 24, 500, 960])
def test_frame_rate_is_used_if_header_and_times_agree(tmp_path, suffix, rate):
    path = write(tmp_path / f"clip{suffix}", 20, rate=rate)
    seen = []
    videos.read_clip(path, lambda count, fps: seen.append(fps) or np.array([0]))
    np.testing.assert_allclose(seen, [float(rate)], rtol=0.01)
    with videos.open_frames(path) as video:
        assert video.fps == seen[0]


@pytest.mark.parametrize("placeholder", [1000.0, 90000.0, 0.1])
@pytest.mark.parametrize(("measured", "fps"), [(25.004, 25.0), (59.94, 59.94), (0.0, 25.0)])
def test_placeholder_frame_rates_are_ignored(placeholder, measured, fps):
    assert packet_index.mean_fps([placeholder], measured) == fps
    assert packet_index.mean_fps([placeholder, 30.0], measured) == 30.0
    assert packet_index.mean_fps([], measured) == fps
