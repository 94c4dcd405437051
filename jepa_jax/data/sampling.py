"""Which clip stands at which place of a run: everything here is a pure function of (seed, global index).

The global index of a clip is step · batch size + row. Nothing is replayed to get to a place, so a run can start
anywhere, with any number of worker processes and hosts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Int

# Sources alternate in fixed proportion; within stretches of this many clips their order is shuffled.
MIXING_WINDOW = 256
_SHUFFLE_ROUNDS = 4


class Draw(NamedTuple):
    """A clip of the run: an item of a source, and the seed of its window, crop and flip."""

    source: int  # index among the sources of the run
    epoch: int  # how often the source has been gone through before
    item: int  # index within the source
    seed: tuple[int, int]  # (seed of the run, global index)

    def generator(self) -> np.random.Generator:
        """A fresh random generator for this draw alone."""
        return np.random.default_rng(self.seed)


class Order:
    """`order[global index]` is the `Draw` there; any index ≥ 0, in constant time.

    Each source is shuffled anew every epoch and gives each item once an epoch; sources take turns by weight (exactly
    so in the long run, at random within a few hundred clips).
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        """Sizes are numbers of items; a source with weight 0 is never drawn."""
        self._seed = seed
        mixing_seed, *shuffle_seeds = np.random.SeedSequence(seed).generate_state(1 + len(sizes)).tolist()
        self._mixing_seed = mixing_seed
        self._drawn = [s for s, weight in enumerate(weights) if weight > 0]
        self._sizes = [sizes[s] for s in self._drawn]
        shuffled = [grain.MapDataset.range(sizes[s]).shuffle(seed=shuffle_seeds[s]).repeat() for s in self._drawn]
        # An element of source s is (s, how many of it were drawn before, item).
        numbered = [items.map_with_index(_Numbered(s)) for s, items in enumerate(shuffled)]
        self._mixed = grain.MapDataset.mix(numbered, [weights[s] for s in self._drawn])

    def __getitem__(self, index: int) -> Draw:
        place = index
        if len(self._drawn) > 1:
            window, offset = divmod(index, MIXING_WINDOW)
            place = window * MIXING_WINDOW + grain.experimental.index_shuffle(
                offset,
                max_index=MIXING_WINDOW - 1,
                seed=(self._mixing_seed + window) % 2**32,
                rounds=_SHUFFLE_ROUNDS,
            )
        element = self._mixed[place]
        assert element is not None  # nothing is filtered out
        drawn, count, item = element
        return Draw(self._drawn[drawn], count // self._sizes[drawn], item, (self._seed, index))


class _Numbered:
    def __init__(self, source: int):
        self._source = source

    def __call__(self, count: int, item: int) -> tuple[int, int, int]:
        return self._source, count, item


class Rows:
    """The clips that one process holds, step after step: local place j → `Draw`."""

    def __init__(self, order: Order, batch_size: int, rows: Sequence[int], start_step: int, stop_step: int):
        """Rows are those of the global batch of `batch_size` clips that the process holds, in their order."""
        self._order = order
        self._batch_size = batch_size
        self._rows = tuple(rows)
        self._start_step = start_step
        self._stop_step = stop_step

    def __len__(self) -> int:
        return max(0, self._stop_step - self._start_step) * len(self._rows)

    def __getitem__(self, index: int) -> Draw:
        step, row = divmod(index, len(self._rows))
        return self._order[(self._start_step + step) * self._batch_size + self._rows[row]]


def stride(fps: float, frame_step: int, target_fps: int) -> int:
    """Every how many frames one is taken: ⌈fps⌉ // target_fps (at least 1) if a target is set, else `frame_step`."""
    return max(1, math.ceil(fps) // target_fps) if target_fps > 0 else frame_step


def random_window(count: int, frames: int, step: int, rng: np.random.Generator) -> Int[np.ndarray, "{frames}"]:
    """Indices of `frames` frames, `step` apart, from a uniform start; a video of fewer repeats its last frame."""
    span = (frames - 1) * step + 1
    start = int(rng.integers(max(1, count - span + 1)))
    return np.minimum(start + step * np.arange(frames), count - 1)


def nth_window(count: int, frames: int, step: int, number: int, windows: int) -> Int[np.ndarray, "{frames}"]:
    """Indices of `frames` frames, `step` apart: window `number` (from 0) of several, equally far apart.

    The first window starts with the video and the last ends with it, a single one lies in the middle; a video of fewer
    frames repeats its last.
    """
    span = (frames - 1) * step + 1
    room = max(0, count - span)
    start = room * number // (windows - 1) if windows > 1 else room // 2
    return np.minimum(start + step * np.arange(frames), count - 1)


def spread_window(count: int, frames: int) -> Int[np.ndarray, "{frames}"]:
    """Indices of `frames` frames spread over a video from first to last; a shorter video repeats its last frame."""
    if count < frames:
        return np.minimum(np.arange(frames), count - 1)
    return np.linspace(0, count - 1, frames).astype(np.int64)
