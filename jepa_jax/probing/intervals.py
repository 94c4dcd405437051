"""How sure an accuracy is: the bootstrap over test items, in closed form where answers are right or wrong.

Resampling n items with replacement and averaging what is right needs only how often each pattern of right and wrong
occurs (one bit a probe seed), and those counts are multinomial. So ten thousand resamples of any test set take
milliseconds, and two probes that answered the same items are resampled together.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

RESAMPLES = 10_000
LEVEL = 0.95


class Interval(NamedTuple):
    """Bounds between which the middle 95 % of the resamples lie."""

    low: float
    high: float


class Difference(NamedTuple):
    """How much higher one accuracy is than another, as a share, and the interval of that."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def resample(
    correct_SxI: Bool[np.ndarray, "seeds items"], rng: np.random.Generator, resamples: int = RESAMPLES
) -> Float[np.ndarray, "resamples seeds"]:
    """Each probe seed's accuracy on test items drawn anew with replacement, the same items for every seed.

    Args:
        correct_SxI: whether the probe of each seed was right about each item.
        rng: of the draws.
        resamples: how many.
    """
    patterns_UxS, counts_U = np.unique(correct_SxI.T, axis=0, return_counts=True)
    items = correct_SxI.shape[1]
    return rng.multinomial(items, counts_U / items, size=resamples) @ patterns_UxS.astype(np.float64) / items


def interval(correct_SxI: Bool[np.ndarray, "seeds items"]) -> Interval:
    """Bootstrap 95 % interval, over test items, of the accuracy averaged over probe seeds (percentile method)."""
    return _middle(resample(correct_SxI, np.random.default_rng(0)).mean(axis=1))


def paired_difference(
    ours_SxI: Bool[np.ndarray, "seeds items"], theirs_SxI: Bool[np.ndarray, "other items"]
) -> Difference:
    """Accuracy of `ours` − that of `theirs`, which answered the same items; items and probe seeds are resampled."""
    rng = np.random.default_rng(0)
    both_RxS = resample(np.concatenate([ours_SxI, theirs_SxI]), rng)
    split = len(ours_SxI)
    return _difference(ours_SxI, theirs_SxI, both_RxS[:, :split], both_RxS[:, split:], rng)


def unpaired_difference(
    ours_SxI: Bool[np.ndarray, "seeds items"], theirs_SxJ: Bool[np.ndarray, "other others"]
) -> Difference:
    """The same where each answered items of its own."""
    rng = np.random.default_rng(0)
    return _difference(ours_SxI, theirs_SxJ, resample(ours_SxI, rng), resample(theirs_SxJ, rng), rng)


def _difference(
    ours: np.ndarray, theirs: np.ndarray, ours_RxS: np.ndarray, theirs_RxS: np.ndarray, rng: np.random.Generator
) -> Difference:
    low, high = _middle(_over_seeds(ours_RxS, rng) - _over_seeds(theirs_RxS, rng))
    return Difference(float(ours.mean() - theirs.mean()), low, high)


def _over_seeds(accuracy_RxS: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, "resamples"]:
    """The mean over probe seeds that are drawn anew with replacement, too."""
    resamples, seeds = accuracy_RxS.shape
    drawn_RxS = rng.integers(seeds, size=(resamples, seeds))
    return np.take_along_axis(accuracy_RxS, drawn_RxS, axis=1).mean(axis=1)


def _middle(values_R: Float[np.ndarray, "resamples"]) -> Interval:
    low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
