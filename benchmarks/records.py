"""Speed of training clips from a prepared set, against decoding whole frames as earlier versions did.

    python benchmarks/records.py FOLDER [--rounds 20]

FOLDER contains videos; those whose short side is at least 256 pixels make frames as most datasets have them. Both ways
read each clip in turn, with the same crop, and must give equal pixels. One process with one thread, pinned to one core
if the system supports it; times are processor time. The rate of decoding one fixed frame shows the machine's speed.
"""

import argparse
import functools
import multiprocessing
import os
import pathlib
import tempfile
import time
from unittest import mock

import cv2
import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from absl import flags

from jepa_jax import config
from jepa_jax.data import augment, sampling
from jepa_jax.data.preparation import build, sets
from jepa_jax.data.preparation import frames as preparation_frames
from jepa_jax.data.sources import array_record
from jepa_jax.data.workers import worker_process

CLIPS = {"8×112×112": (8, 112), "16×224×224": (16, 224)}
CLIPS_A_ROUND = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each way")
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    with tempfile.TemporaryDirectory() as temporary:
        prepared = pathlib.Path(temporary) / "prepared"
        raw = sets.OPEN["folder"](arguments.folder)
        print(build.prepare(raw, prepared, preparation_frames.JpegSettings(), processes=0))
        with multiprocessing.get_context("spawn").Pool(1, initializer=_single) as pool:
            print(
                "\n| clip | whole frames (ms) | now (ms) | ratio (quartiles) | fixed frames/s |\n|---|---|---|---|---|"
            )
            for name, (count, size) in CLIPS.items():
                row = pool.apply(compare, (str(prepared), count, size, arguments.rounds))
                print(f"| {name} | {row} |", flush=True)


def _single() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    flags.FLAGS.mark_as_parsed()
    cv2.setNumThreads(0)
    worker_process.keep_freed_memory()


def compare(folder: str, count: int, size: int, rounds: int) -> str:
    """Times both ways clip by clip; returns the medians, their ratio and the rate of the fixed frame."""
    prepared = array_record.open_set(folder, "train")
    whole_ms, now_ms, fixed = np.zeros((3, rounds))
    for turn in range(-1, rounds):  # the first one warms up
        seconds = {read: 0.0, read_whole: 0.0}
        for number in range(CLIPS_A_ROUND):
            clips = []
            for way in (read, read_whole) if number % 2 else (read_whole, read):
                with mock.patch.object(array_record, "records", RECORDS[way]):
                    started = time.process_time()
                    clips.append(way(prepared, CLIPS_A_ROUND * (turn + 1) + number, count, size))
                    seconds[way] += time.process_time() - started
            np.testing.assert_array_equal(*clips)
        now_ms[turn], whole_ms[turn] = (1e3 * seconds[way] / CLIPS_A_ROUND for way in (read, read_whole))
        fixed[turn] = _fixed_rate()
    low, middle, high = np.quantile(whole_ms / now_ms, (0.25, 0.5, 0.75))
    return (
        f"{np.median(whole_ms):.2f} | {np.median(now_ms):.2f} | {middle:.2f} ({low:.2f}–{high:.2f}) | "
        f"{np.median(fixed):.0f}"
    )


def read(prepared: array_record.PreparedSet, number: int, count: int, size: int) -> np.ndarray:
    """A clip as training reads it."""
    return prepared.read_clip(number % len(prepared.index.ids), _window(number, count), _view(number, size))


def read_whole(prepared: array_record.PreparedSet, number: int, count: int, size: int) -> np.ndarray:
    """The same clip; a plain function does not say which part of a frame it uses."""
    view = _view(number, size)
    return prepared.read_clip(number % len(prepared.index.ids), _window(number, count), lambda frame: view(frame))


def _view(number: int, size: int) -> augment.RandomView:
    return augment.RandomView(size, size, config.AugmentConfig(), np.random.default_rng((number, 1)))


def _window(number: int, count: int):
    return lambda length, _: sampling.random_window(length, count, 1, np.random.default_rng(number))


@functools.cache
def tfds_records(folder: str, part: str):
    """Records as TFDS reads them, which copies all of their frames."""
    return tfds.builder_from_directory(folder).as_data_source(split=part)  # pyright: ignore[reportCallIssue]


RECORDS = {read: array_record.records, read_whole: tfds_records}


@functools.cache
def _fixed_frame() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (256, 340, 3), np.uint8)
    return preparation_frames.encode(cv2.GaussianBlur(noise, (0, 0), 2), 90)


def _fixed_rate(frames: int = 100) -> float:
    jpeg, started = _fixed_frame(), time.process_time()
    for _ in range(frames):
        simplejpeg.decode_jpeg(jpeg, "RGB")
    return frames / (time.process_time() - started)


if __name__ == "__main__":
    main()
