"""Speed of training clips from a prepared set, against decoding whole frames as earlier versions did.

    python benchmarks/records.py FOLDER [--rounds 20]

FOLDER contains videos; those whose short side is at least 256 pixels make frames as most datasets have them. Both ways
read each clip in turn, with the same crop, and must give equal pixels. One process with one thread, pinned to one core
if the system supports it; times are processor time. The rate of decoding one fixed frame shows the machine's speed.
"""

import argparse
import functools
import pathlib
import tempfile
import time
from unittest import mock

import machine
import numpy as np
import one_core
import preparing
import table
import tensorflow_datasets as tfds
from absl import flags

from jepa_jax import config
from jepa_jax.data import augment, sampling
from jepa_jax.data.sources import array_record

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
        preparing.prepare(arguments.folder, prepared)
        rows = []
        for name, (count, size) in CLIPS.items():
            measured = one_core.run(compare, str(prepared), count, size, arguments.rounds)
            rows.append((f"{name}, {arguments.rounds} rounds of {CLIPS_A_ROUND} clips", *measured))
        titles = ("clip", "whole frames (ms)", "now (ms)", "ratio (quartiles)", "fixed frames/s")
        clips = len(array_record.open_set(str(prepared), "train").index.ids)
        table.show(titles, rows, f"{one_core.run(machine.describe_core)} {clips} clips.")


def compare(folder: str, count: int, size: int, rounds: int) -> tuple[str, ...]:
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
        fixed[turn] = machine.decode_rate()
    low, middle, high = np.quantile(whole_ms / now_ms, (0.25, 0.5, 0.75))
    ratio = f"{middle:.2f} ({low:.2f}–{high:.2f})"
    return f"{np.median(whole_ms):.2f}", f"{np.median(now_ms):.2f}", ratio, f"{np.median(fixed):,.0f}"


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


if __name__ == "__main__":
    main()
