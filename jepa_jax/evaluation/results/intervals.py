"""Confidence intervals of accuracies and of their differences, over test items and probe seeds.

An accuracy is a mean over n test items and S probe seeds, which are crossed: every seed predicts every item. The
variance of the mean is estimated as a sum of two terms with Satterthwaite's degrees of freedom: the variance of the
items' means over seeds divided by n, and the variance of the seeds' accuracies divided by S. The sum counts their
interaction twice, so the intervals are conservative. They exclude variance between training runs.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

LEVEL = 0.95
ONE = "Clopper-Pearson; with several probe seeds Korn-Graubard"
TWO = "adjusted Wald (paired: Agresti-Min, else Agresti-Caffo) with Satterthwaite's degrees of freedom"


class Interval(NamedTuple):
    """Bounds of a 95 % confidence interval, as shares."""

    low: float
    high: float


class Difference(NamedTuple):
    """Difference of two accuracies, as a share, and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class _Variance(NamedTuple):
    """Estimated variance of a mean, with its degrees of freedom."""

    value: float
    freedom: float


def interval(correct_SxI: Bool[np.ndarray, "seeds items"]) -> Interval:
    """The 95 % confidence interval of the accuracy, averaged over probe seeds.

    For one seed it is Clopper and Pearson's exact interval (1934). For several seeds it is the same interval for the
    effective number of independent predictions, at most the number of items, as Korn and Graubard (1998) propose for
    clustered samples.

    Args:
        correct_SxI: whether each seed's prediction is correct for each item.
    """
    seeds, items = correct_SxI.shape
    accuracy, answers = float(correct_SxI.mean()), float(items)
    if seeds > 1 and items > 1:
        variance = _sum(_of_mean(correct_SxI.mean(axis=0)), _of_mean(correct_SxI.mean(axis=1)))
        if variance.value > 0:
            answers = accuracy * (1 - accuracy) / variance.value
            answers *= (_quantile(float(items - 1)) / _quantile(variance.freedom)) ** 2
            answers = min(answers, float(items))
    return of_share(accuracy, answers)


def of_share(share: float, answers: float) -> Interval:
    """Clopper and Pearson's 95 % confidence interval of a share of so many independent answers."""
    right, wrong = share * answers, (1 - share) * answers
    tail = (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, right, wrong + 1) if share > 0 else 0.0
    high = stats.beta.isf(tail, right + 1, wrong) if share < 1 else 1.0
    return Interval(float(low), float(high))


def r_squared(error_I: Float[np.ndarray, "items"], deviation_I: Float[np.ndarray, "items"]) -> tuple[float, Interval]:
    """R² = 1 − Σ error / Σ deviation and its 95 % confidence interval over items.

    The ratio of two means is linearized, as in Cochran (1977), section 6.4: its variance is that of the mean of
    (error − ratio · deviation) / mean deviation. The distribution is Student's t.

    Args:
        error_I: squared error of each item.
        deviation_I: squared deviation of each item from the mean of all; not all are 0.
    """
    mean = deviation_I.mean()
    ratio = error_I.mean() / mean
    half = _quantile(len(error_I) - 1.0) * np.sqrt(_of_mean((error_I - ratio * deviation_I) / mean).value)
    return float(1 - ratio), Interval(float(1 - ratio - half), float(min(1 - ratio + half, 1.0)))


def paired_difference(
    ours_SxI: Bool[np.ndarray, "seeds items"], theirs_SxI: Bool[np.ndarray, "other items"]
) -> Difference:
    """Accuracy of `ours` − accuracy of `theirs`, on the same items.

    The interval is Agresti and Min's (2005): it adds half an item to each of the four combinations of right and wrong,
    so that probes that agree on every item do not get an interval of width 0.
    """
    change_I = ours_SxI.mean(axis=0) - theirs_SxI.mean(axis=0)
    center, items = _adjusted(change_I, added=2, mean=0.0, square=0.5)
    variance = _sum(items, *_of_seeds(ours_SxI, theirs_SxI))
    return _difference(ours_SxI, theirs_SxI, center, variance)


def unpaired_difference(
    ours_SxI: Bool[np.ndarray, "seeds items"], theirs_SxJ: Bool[np.ndarray, "other others"]
) -> Difference:
    """Accuracy of `ours` − accuracy of `theirs`, on different items.

    The interval is Agresti and Caffo's (2000): it adds one right and one wrong item to each.
    """
    ours, items = _adjusted(ours_SxI.mean(axis=0), added=2, mean=0.5, square=0.5)
    theirs, others = _adjusted(theirs_SxJ.mean(axis=0), added=2, mean=0.5, square=0.5)
    variance = _sum(items, others, *_of_seeds(ours_SxI, theirs_SxJ))
    return _difference(ours_SxI, theirs_SxJ, ours - theirs, variance)


def _difference(ours: np.ndarray, theirs: np.ndarray, center: float, variance: _Variance) -> Difference:
    half = _quantile(variance.freedom) * np.sqrt(variance.value)
    value = float(ours.mean() - theirs.mean())
    return Difference(value, float(max(center - half, -1.0)), float(min(center + half, 1.0)))


def _adjusted(values_I: Float[np.ndarray, "items"], added: int, mean: float, square: float) -> tuple[float, _Variance]:
    """The mean of values and of `added` further ones with the given mean and mean square, and its variance."""
    items = len(values_I) + added
    center = (values_I.sum() + added * mean) / items
    variance = (np.square(values_I).sum() + added * square) / items - center**2
    return float(center), _Variance(float(variance / items), float(max(len(values_I) - 1, 1)))


def _of_seeds(*correct: Bool[np.ndarray, "_ _"]) -> list[_Variance]:
    """Variance of the mean over probe seeds; a single seed has no estimate."""
    return [_of_mean(each.mean(axis=1)) for each in correct if len(each) > 1]


def _of_mean(values_N: Float[np.ndarray, "N"]) -> _Variance:
    return _Variance(float(values_N.var(ddof=1) / len(values_N)), float(len(values_N) - 1))


def _sum(*parts: _Variance) -> _Variance:
    """The variance of a sum of independent estimates (Satterthwaite 1946)."""
    total = sum(part.value for part in parts)
    spread = sum(part.value**2 / part.freedom for part in parts)
    return _Variance(total, total**2 / spread if spread else np.inf)


def _quantile(freedom: float) -> float:
    """Half the width of the middle 95 % of Student's t distribution."""
    return float(stats.t.isf((1 - LEVEL) / 2, freedom))
