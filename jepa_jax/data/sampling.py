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

# Streams alternate in fixed proportion; within stretches of this many places their order is shuffled.
MIXING_WINDOW = 256
_SHUFFLE_ROUNDS = 4
_TURNS = 1  # keeps the seed of the turns apart from those of the orders
_CROP = 1  # and that of crops from that of windows


class Draw(NamedTuple):
    """A clip of the run: an item of a source, and the seed of its window, crop and flip."""

    source: int  # index among the sources of the run
    epoch: int  # how often the source has been gone through before
    item: int  # index within the source
    seed: tuple[int, int]  # (seed of the run, global index)

    def generators(self) -> tuple[np.random.Generator, np.random.Generator]:
        """Fresh random generators for this draw alone: of its window, and of its crop and flip."""
        return np.random.default_rng(self.seed), np.random.default_rng((*self.seed, _CROP))


class Mix:
    """Several endless streams as one: at every place an element of one of them, as often as its weight says.

    Shares are exact in the long run and at random within MIXING_WINDOW places. Every element of a stream has one place.
    """

    def __init__(self, streams: Sequence[grain.MapDataset], weights: Sequence[float], seed: int):
        """Weights are above 0."""
        # An element of stream s is (s, its number in the stream, what stands there).
        numbered = [elements.map_with_index(_Numbered(s)) for s, elements in enumerate(streams)]
        self._mixed = grain.MapDataset.mix(numbered, weights)
        self._seed = seed if len(streams) > 1 else None

    def __getitem__(self, place: int) -> tuple[int, int, int]:
        """(stream, number of the element in it, the element)."""
        if self._seed is not None:
            window, offset = divmod(place, MIXING_WINDOW)
            place = window * MIXING_WINDOW + grain.experimental.index_shuffle(
                offset,
                max_index=MIXING_WINDOW - 1,
                seed=(self._seed + window) % 2**32,
                rounds=_SHUFFLE_ROUNDS,
            )
        element = self._mixed[place]
        assert element is not None  # nothing is filtered out
        return element


class _Numbered:
    def __init__(self, stream: int):
        self._stream = stream

    def __call__(self, number: int, element: int) -> tuple[int, int, int]:
        return self._stream, number, element


class Order:
    """`order[global index]` is the `Draw` there; any index ≥ 0, in constant time.

    Each source is shuffled anew every epoch and gives each item once an epoch; sources take turns by weight. (The
    study, arXiv:2605.17165, draws source and item of every clip independently, with replacement.)
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        """Sizes are numbers of items; a source with weight 0 is never drawn."""
        self._seed = seed
        mixing_seed, *shuffle_seeds = np.random.SeedSequence(seed).generate_state(1 + len(sizes)).tolist()
        self._drawn = [s for s, weight in enumerate(weights) if weight > 0]
        self._sizes = [sizes[s] for s in self._drawn]
        shuffled = [grain.MapDataset.range(sizes[s]).shuffle(seed=shuffle_seeds[s]).repeat() for s in self._drawn]
        self._mix = Mix(shuffled, [weights[s] for s in self._drawn], mixing_seed)

    def __getitem__(self, index: int) -> Draw:
        drawn, count, item = self._mix[index]
        return Draw(self._drawn[drawn], count // self._sizes[drawn], item, (self._seed, index))


class Turns:
    """Whose turn each step is, where whole steps alternate: `turns[step]` is (which order, how many steps it had)."""

    def __init__(self, weights: Sequence[float], seed: int):
        """Weights are above 0."""
        (seed,) = np.random.SeedSequence((seed, _TURNS)).generate_state(1).tolist()
        self._mix = Mix([grain.MapDataset.range(1).repeat() for _ in weights], weights, seed)

    def __getitem__(self, step: int) -> tuple[int, int]:
        order, count, _ = self._mix[step]
        return order, count


class Rows:
    """The clips that one process holds, step after step: local place j → `Draw`.

    Where there are several orders, each step belongs to one of them, by weight; every order goes on where it stopped.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        weights: Sequence[float],
        seed: int,
        batch_size: int,
        rows: Sequence[int],
        start_step: int,
        stop_step: int,
    ):
        """Rows are those of the global batch of `batch_size` clips that the process holds, in their order."""
        self._orders = tuple(orders)
        self._turns = Turns(weights, seed)
        self._seed = seed
        self._batch_size = batch_size
        self._rows = tuple(rows)
        self._start_step = start_step
        self._stop_step = stop_step

    def __len__(self) -> int:
        return max(0, self._stop_step - self._start_step) * len(self._rows)

    def __getitem__(self, index: int) -> Draw:
        step, row = divmod(index, len(self._rows))
        step, row = self._start_step + step, self._rows[row]
        order, count = self._turns[step]
        draw = self._orders[order][count * self._batch_size + row]
        return draw._replace(seed=(self._seed, step * self._batch_size + row))


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
