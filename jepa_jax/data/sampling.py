"""Deterministic sampling order: a pure function of (seed, global index).

The global index of a clip is step · batch size + row. Any index is computed in constant time, without replaying earlier
ones, so a run can resume at any step with any number of worker processes and hosts.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    import grain  # slow to import: at run time, imported where an order is made

# Streams alternate in fixed proportion; their order is shuffled within windows of this many positions.
MIXING_WINDOW = 256
_SHUFFLE_ROUNDS = 4
_STEP_MIXER = 1  # makes the step mixer's seed differ from the seeds of the orders
_CROP = 1  # makes the seed of crops differ from that of windows


class Sample(NamedTuple):
    """One training example: an item of a source and the seed of its window, crop and flip."""

    source: int  # index into the sources of the run
    epoch: int  # completed passes over the source
    item: int  # index within the source
    seed: tuple[int, int]  # (seed of the run, global index)

    def generators(self) -> tuple[np.random.Generator, np.random.Generator]:
        """Returns two random generators for this sample: one for its window, one for its crop and flip."""
        return np.random.default_rng(self.seed), np.random.default_rng((*self.seed, _CROP))


class Mix:
    """Interleaves several infinite streams in proportion to their weights.

    Proportions are exact in the long run; the order is random within MIXING_WINDOW positions. Every element of a stream
    appears exactly once.
    """

    def __init__(self, streams: Sequence["grain.MapDataset"], weights: Sequence[float], seed: int):
        """All weights must be above 0."""
        import grain

        # An element of stream s is (s, its index in the stream, its value).
        numbered = [elements.map_with_index(_Numbered(s)) for s, elements in enumerate(streams)]
        self._mixed = grain.MapDataset.mix(numbered, weights)
        self._seed = seed if len(streams) > 1 else None

    def __getitem__(self, position: int) -> tuple[int, int, int]:
        """Returns (stream, index within the stream, element)."""
        if self._seed is not None:
            from grain import experimental

            window, offset = divmod(position, MIXING_WINDOW)
            position = window * MIXING_WINDOW + experimental.index_shuffle(
                offset,
                max_index=MIXING_WINDOW - 1,
                seed=(self._seed + window) % 2**32,
                rounds=_SHUFFLE_ROUNDS,
            )
        element = self._mixed[position]
        assert element is not None  # the dataset has no filter
        return element


class _Numbered:
    def __init__(self, stream: int):
        self._stream = stream

    def __call__(self, number: int, element: int) -> tuple[int, int, int]:
        return self._stream, number, element


class Order:
    """`order[global index]` is the `Sample` at that index (≥ 0), computed in constant time.

    Each source is reshuffled every epoch and yields each item once per epoch; sources are interleaved by weight. (The
    study, arXiv:2605.17165, draws source and item of every clip independently, with replacement.)
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        """`sizes` are numbers of items. A source with weight 0 is never sampled."""
        import grain

        self._seed = seed
        mixing_seed, *shuffle_seeds = np.random.SeedSequence(seed).generate_state(1 + len(sizes)).tolist()
        self._drawn = [s for s, weight in enumerate(weights) if weight > 0]
        self._sizes = [sizes[s] for s in self._drawn]
        shuffled = [grain.MapDataset.range(sizes[s]).shuffle(seed=shuffle_seeds[s]).repeat() for s in self._drawn]
        self._mix = Mix(shuffled, [weights[s] for s in self._drawn], mixing_seed)

    def __getitem__(self, index: int) -> Sample:
        drawn, count, item = self._mix[index]
        return Sample(self._drawn[drawn], count // self._sizes[drawn], item, (self._seed, index))


class StepMixer:
    """Assigns each step to one of several orders: `mixer[step]` is (order, number of earlier steps of that order)."""

    def __init__(self, weights: Sequence[float], seed: int):
        """All weights must be above 0."""
        import grain

        (seed,) = np.random.SeedSequence((seed, _STEP_MIXER)).generate_state(1).tolist()
        self._mix = Mix([grain.MapDataset.range(1).repeat() for _ in weights], weights, seed)

    def __getitem__(self, step: int) -> tuple[int, int]:
        order, count, _ = self._mix[step]
        return order, count


class LocalRows:
    """The samples of one process, step by step: local index → `Sample`.

    With several orders, each step takes its whole batch from one of them, chosen by weight; each order continues where
    its previous step ended.
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
        """`rows` are the rows of the global batch of `batch_size` clips that this process holds, in order."""
        self._orders = tuple(orders)
        self._mixer = StepMixer(weights, seed)
        self._seed = seed
        self._batch_size = batch_size
        self._rows = tuple(rows)
        self._start_step = start_step
        self._stop_step = stop_step

    def __len__(self) -> int:
        return max(0, self._stop_step - self._start_step) * len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        step, row = divmod(index, len(self._rows))
        step, row = self._start_step + step, self._rows[row]
        order, count = self._mixer[step]
        draw = self._orders[order][count * self._batch_size + row]
        return draw._replace(seed=(self._seed, step * self._batch_size + row))


def stride(fps: float, frame_step: int, target_fps: int) -> int:
    """The step between sampled frames: ⌈fps⌉ // target_fps (at least 1) if a target is set, else `frame_step`."""
    return max(1, math.ceil(fps) // target_fps) if target_fps > 0 else frame_step


def random_window(count: int, frames: int, step: int, rng: np.random.Generator) -> Int[np.ndarray, "{frames}"]:
    """Indices of `frames` frames, `step` apart, from a uniformly drawn start; a short video repeats its last frame."""
    span = (frames - 1) * step + 1
    start = int(rng.integers(max(1, count - span + 1)))
    return np.minimum(start + step * np.arange(frames), count - 1)


def random_linspace_window(count: int, frames: int, step: int, rng: np.random.Generator) -> Int[np.ndarray, "{frames}"]:
    """Indices as in the study's code (arXiv:2605.17165, commit 3588723, after V-JEPA's video dataset).

    `frames` positions are evenly spaced over a span of frames · step frames, both ends included, and truncated: 16
    frames with step 2 are 0, 2, … 14, 17, 19, … 31, and with step 1 every frame. In a video no longer than the span,
    count // step positions are evenly spaced over the whole video, and its last frame is repeated after them.
    """
    span = frames * step
    start = 0
    if count > span:
        start = int(rng.integers(count - span))
        offset = np.minimum(np.linspace(0, span, frames), span - 1)
    else:
        spread = np.linspace(0, count, min(count // step, frames))
        offset = np.concatenate([spread, np.full(frames - len(spread), count)])
    return np.minimum(start + offset.astype(np.int64), count - 1)


# Keyed by the `window` setting of a source.
RANDOM_WINDOWS = {"even": random_window, "linspace": random_linspace_window}


def nth_window(count: int, frames: int, step: int, number: int, windows: int) -> Int[np.ndarray, "{frames}"]:
    """Indices of `frames` frames, `step` apart: window `number` (from 0) of `windows` evenly spaced ones.

    The first window starts at the first frame and the last ends at the last frame; a single window is centred. A short
    video repeats its last frame.
    """
    span = (frames - 1) * step + 1
    room = max(0, count - span)
    start = room * number // (windows - 1) if windows > 1 else room // 2
    return np.minimum(start + step * np.arange(frames), count - 1)


def spread_window(count: int, frames: int) -> Int[np.ndarray, "{frames}"]:
    """Indices of `frames` frames evenly spaced from first to last; a shorter video repeats its last frame."""
    if count < frames:
        return np.minimum(np.arange(frames), count - 1)
    return np.linspace(0, count - 1, frames).astype(np.int64)
