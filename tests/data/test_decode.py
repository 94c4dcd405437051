import dataclasses
import pickle
import struct

import av
import numpy as np
import pytest

from jepa_jax.data.decode import packet_index, videos


def all_frames(count, fps):
    return np.arange(count)


def at(*wanted):
    return lambda count, fps: np.array(wanted)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv", ".webm", ".mpg"])
def test_every_container_returns_the_requested_frames(tmp_path, suffix, write_video, numbers):
    path = write_video(tmp_path / f"clip{suffix}")
    seen = []

    def choose(count, fps):
        seen.append((count, fps))
        return np.array([3, 13, 14, 22, 22])

    frames = videos.read_clip(path, choose)
    assert seen == [(24, 25.0)]
    assert frames.shape == (5, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert numbers(frames) == [3, 13, 14, 22, 22]


@pytest.mark.parametrize("gop", [1, 12, 100])
@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_seeking_does_not_change_pixels(tmp_path, suffix, gop, write_video):
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (48, 200, 3), np.uint8)
    path = write_video(tmp_path / f"clip{suffix}", gop=gop, picture=lambda k: texture[:, 4 * k : 4 * k + 64])
    with videos.open_frames(path) as video:
        every = list(video.frames)
    assert len(every) == 24
    for wanted in ([23], [12], [11, 13], [0, 8, 16, 23], [5, 6, 7]):
        frames = videos.read_clip(path, at(*wanted))
        for frame, k in zip(frames, wanted, strict=True):
            np.testing.assert_array_equal(frame, every[k])


def test_each_requested_frame_is_converted_once_and_no_other(tmp_path, write_video, numbers):
    path, seen = write_video(tmp_path / "clip.mp4"), []

    def transform(frame):
        seen.extend(numbers(frame[None]))
        return frame[:4, :6]

    frames = videos.read_clip(path, at(5, 9, 9, 20, 20, 20), transform)
    assert seen == [5, 9, 20]
    assert frames.shape == (6, 4, 6, 3)
    assert numbers(frames) == [5, 9, 9, 20, 20, 20]


def test_decoding_starts_at_the_key_frame(tmp_path, write_video):
    """Zeroing the packets before the key frame and well after the last requested frame does not change the clip."""
    rng = np.random.default_rng(0)
    path = tmp_path / "clip.mp4"
    write_video(path, frames=60, gop=6, picture=lambda k: rng.integers(0, 255, (48, 64, 3), np.uint8))
    whole = videos.read_clip(str(path), at(14, 15))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    key = max(i for i, packet in enumerate(packets[:15]) if packet.is_keyframe)
    assert 0 < key < 14
    content = bytearray(path.read_bytes())
    for packet in (*packets[:key], *packets[36:]):  # the decoder reads some frames ahead
        assert packet.pos is not None
        content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(content)
    np.testing.assert_array_equal(videos.read_clip(str(path), at(14, 15)), whole)


def test_frames_of_variable_rate_videos_are_selected_by_number(tmp_path, write_video, numbers):
    times = np.cumsum([40 if k % 3 else 200 for k in range(24)]).tolist()
    path = write_video(tmp_path / "clip.mkv", times=times)
    assert numbers(videos.read_clip(path, all_frames)) == list(range(24))
    assert numbers(videos.read_clip(path, at(7, 20))) == [7, 20]


def test_audio_track_is_ignored(tmp_path, write_video, numbers):
    path = write_video(tmp_path / "clip.mkv", sound=True)
    assert numbers(videos.read_clip(path, all_frames)) == list(range(24))


@pytest.mark.parametrize("fps", [1, 12, 30, 60, 120])
def test_frame_rate_matches_the_file(tmp_path, fps, write_video):
    rates = []
    path = write_video(tmp_path / "clip.mp4", frames=8, fps=fps)
    videos.read_clip(path, lambda count, rate: rates.append(rate) or np.array([0]))
    assert rates == [fps]


def test_rotated_video_is_returned_upright(tmp_path, write_video, grey):
    """Phones store portrait videos sideways, with a display matrix in the track header."""

    def sideways(k):
        frame = grey(10)
        frame[:, :8] = 255  # a bright left edge, which is the top after rotating clockwise by 90°
        return frame

    path = tmp_path / "phone.mp4"
    write_video(path, frames=4, picture=sideways)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    assert struct.unpack_from(">9i", content, matrix)[0] == one
    struct.pack_into(">9i", content, matrix, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    frames = videos.read_clip(str(path), at(1))
    assert frames.shape == (1, 64, 48, 3)
    assert frames[0, :6].mean() > 240
    assert frames[0, 12:].mean() < 120


def test_frames_are_selected_again_if_the_stream_is_shorter_than_its_index(tmp_path, monkeypatch, write_video, numbers):
    path = write_video(tmp_path / "clip.avi", frames=10)
    # As with packed B-frames of DivX: more packets than frames, and unusable times.
    promising = packet_index.PacketIndex(frames=14, fps=25.0, times=None, keys=np.zeros(0, np.int64))
    monkeypatch.setattr(videos, "index_of", lambda *a: promising)
    assert numbers(videos.read_clip(path, lambda count, fps: np.array([0, count - 1]))) == [0, 9]


def test_frames_are_counted_if_no_frame_has_the_indexed_times(tmp_path, monkeypatch, write_video, numbers):
    path = write_video(tmp_path / "clip.mp4")

    def shifted(path, container, stream):
        index = packet_index.of_packets(container, stream)
        return dataclasses.replace(index, times=index.times + 1)

    monkeypatch.setattr(videos, "index_of", shifted)
    assert numbers(videos.read_clip(path, at(2, 20))) == [2, 20]


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mpg", ".avi"])
def test_truncated_file_returns_the_remaining_frames(tmp_path, suffix, write_video):
    rng = np.random.default_rng(0)
    path = tmp_path / f"clip{suffix}"
    write_video(path, frames=30, picture=lambda k: rng.integers(0, 255, (48, 64, 3), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    frames = videos.read_clip(str(path), all_frames)
    assert 5 < len(frames) < 28


def bad_files(folder, write_video):
    garbage = np.random.default_rng(0).integers(0, 255, 5000, np.uint8).tobytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "garbage.avi").write_bytes(garbage)
    (folder / "text.mkv").write_text("not a video\n" * 100)
    whole = (folder / "cut.mp4", write_video(folder / "cut.mp4"))[0]
    whole.write_bytes(whole.read_bytes()[:1000])  # the index of an MP4 file is at its end
    with av.open(str(folder / "sound.mkv"), "w") as container:
        stream = container.add_stream("mp2", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), format="s16", layout="stereo")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (folder / "folder.mp4").mkdir()
    return {
        "empty.mp4": "the file is empty",
        "garbage.avi": "Invalid data",
        "text.mkv": "Invalid data",
        "cut.mp4": "Invalid data",
        "sound.mkv": "no video stream",
        "missing.mp4": "No such file",
        "folder.mp4": "Is a directory",
    }


def test_undecodable_videos_raise_with_a_reason(tmp_path, write_video):
    for name, reason in bad_files(tmp_path, write_video).items():
        path = str(tmp_path / name)
        with pytest.raises(videos.DecodeError, match=reason) as caught:
            videos.read_clip(path, all_frames)
        assert caught.value.path == path
        assert str(caught.value).startswith(f"{path}: ")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.path, again.reason) == (path, caught.value.reason)


def test_real_formats_decode(real_data):
    files = sorted((real_data / "formats").iterdir())
    assert len(files) > 10
    for file in files:
        frames = videos.read_clip(str(file), lambda count, fps: np.linspace(count // 2, count - 1, 4).astype(int))
        assert frames.std() > 5, file


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv", ".webm", ".mpg"])
def test_damaged_files_decode_or_raise_with_a_reason(tmp_path, suffix, write_video):
    rng = np.random.default_rng(0)
    path = tmp_path / f"clip{suffix}"
    write_video(path, picture=lambda k: rng.integers(0, 255, (48, 64, 3), np.uint8))
    content = np.frombuffer(path.read_bytes(), np.uint8)
    decoded, reasons = 0, []
    for _ in range(150):
        damaged = content.copy()
        where = rng.integers(0, len(content), int(len(content) ** rng.random()))  # from one byte to most bytes
        damaged[where] = rng.integers(0, 255, len(where))
        end = rng.integers(len(content) // 4, len(content)) if rng.random() < 0.3 else len(content)
        path.write_bytes(damaged[:end].tobytes())
        try:
            frames = videos.read_clip(str(path), lambda count, fps: np.arange(min(count, 8)) + max(0, count - 8) // 2)
            assert frames.dtype == np.uint8
            assert len(frames)
            decoded += 1
        except videos.DecodeError as error:
            reasons.append(error.reason)
    assert decoded
    assert reasons
    assert all(reasons)
