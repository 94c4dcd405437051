"""Statistics of a study. Its unit is the seed: a value is the accuracy of one training run.

Recipes are compared on the same seeds, which start from the same encoder and see the same clips. Intervals are
Student's t over seeds. Tests named before running are adjusted with Holm's method. All functions are deterministic.

Accuracies and differences are shares, not points.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import interpolate, optimize, special, stats

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
_MAX_SEEDS = 100_000
_GRID = 64  # points between two probes, at which a curve is interpolated


class Estimate(NamedTuple):
    """A mean over seeds and its 95 % confidence interval, which is nan if there are fewer than two seeds."""

    value: float
    low: float
    high: float
    seeds: int


class Difference(NamedTuple):
    """Mean of the paired differences to a reference.

    Attributes:
        value: the mean; nan without a common seed.
        low, high: 95 % confidence interval, not adjusted for the number of comparisons; nan if it is unknown.
        seeds: number of common seeds.
        deviation: standard deviation of the differences over seeds; nan if it is unknown.
        p: of the two-sided paired t-test; 1 if it cannot be made.
    """

    value: float
    low: float
    high: float
    seeds: int
    deviation: float
    p: float


class Ratio(NamedTuple):
    """Clips (or labels) that a recipe needs to reach a goal, as a share of those of the reference.

    Attributes:
        value: estimate; `first` if the first probe is already there, inf if the goal is not reached.
        low: lower 95 % confidence bound; 0 if there is none, because the goal may be reached before the first probe.
        high: upper bound; inf if there is none, because the goal may not be reached.
        first: share at the first probe. Smaller values than this cannot be told apart.
        last: share at the last probe. Larger values than this cannot be told apart.
        seeds: number of common seeds.
    """

    value: float
    low: float
    high: float
    first: float
    last: float
    seeds: int


@functools.cache
def quantile(seeds: int, alpha: float = ALPHA) -> float:
    """Student's t with seeds − 1 degrees of freedom, two-sided."""
    return float(stats.t.isf(alpha / 2, seeds - 1))


class TTest(NamedTuple):
    """Student's t-test of each column: its mean, half of the width of its 95 % interval, and the two-sided p."""

    mean_N: Float[np.ndarray, "N"]
    half_N: Float[np.ndarray, "N"]
    p_N: Float[np.ndarray, "N"]


def t_test(values_SxN: Float[np.ndarray, "S N"]) -> TTest:
    """Tests whether the mean over seeds is 0. Without spread, the interval has width 0 and p is 0 or nan."""
    seeds = len(values_SxN)
    mean_N, error_N = values_SxN.mean(axis=0), values_SxN.std(axis=0, ddof=1) / seeds**0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        p_N = 2 * special.stdtr(seeds - 1, -np.abs(mean_N) / error_N)
    return TTest(mean_N, quantile(seeds) * error_N, p_N)


def mean_interval(values_S: Sequence[float] | Float[np.ndarray, "S"]) -> Estimate:
    """The mean over seeds with its t-interval."""
    values = np.asarray(values_S, np.float64)
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, np.nan, np.nan, 1)
    half = float(t_test(values[:, None]).half_N[0])
    return Estimate(mean, mean - half, mean + half, len(values))


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """The difference ours − theirs on the seeds that both have.

    Differences that are equal on all seeds have no estimable spread (two probes that tie on a small test set, or
    recipes that are the same). They get neither an interval nor a small p.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    differences = np.asarray([ours[seed] - theirs[seed] for seed in seeds], np.float64)
    if not seeds:
        return Difference(np.nan, np.nan, np.nan, 0, np.nan, 1.0)
    mean = float(differences.mean())
    if len(seeds) == 1 or np.ptp(differences) < 1e-12:
        return Difference(mean, np.nan, np.nan, len(seeds), np.nan, 1.0)
    found = t_test(differences[:, None])
    half, p = float(found.half_N[0]), float(found.p_N[0])
    return Difference(mean, mean - half, mean + half, len(seeds), float(differences.std(ddof=1)), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given. Those at most α are rejected with familywise error α."""
    p_M = np.asarray(p_values, np.float64)
    order = np.argsort(p_M, kind="stable")
    steps = np.maximum.accumulate(p_M[order] * (len(p_M) - np.arange(len(p_M))))
    adjusted_M = np.empty_like(p_M)
    adjusted_M[order] = np.minimum(steps, 1.0)
    return adjusted_M.tolist()


def power(difference: float, deviation: float, seeds: int, alpha: float = ALPHA) -> float:
    """Probability that a two-sided paired t-test rejects, from the noncentral t distribution.

    The square of that t has the noncentral F distribution with 1 and seeds − 1 degrees of freedom.

    Args:
        difference: true mean of the paired differences.
        deviation: their true standard deviation over seeds.
        seeds: number of pairs, at least 2.
        alpha: level of the test.
    """
    noncentrality = (difference / deviation) ** 2 * seeds
    return float(stats.ncf.sf(quantile(seeds, alpha) ** 2, 1, seeds - 1, noncentrality))


def smallest_difference(deviation: float, seeds: int, alpha: float = ALPHA) -> float:
    """The difference that a paired t-test with these seeds finds with a probability of 80 %; nan if it is unknown."""
    if seeds < 2 or not deviation > 0:
        return np.nan
    upper = 2 * (quantile(seeds, alpha) + 2) / seeds**0.5  # in standard deviations
    while power(upper, 1.0, seeds, alpha) < POWER:
        upper *= 2
    found = optimize.root_scalar(lambda d: power(d, 1.0, seeds, alpha) - POWER, bracket=(1e-9, upper))
    return deviation * float(found.root)


def seeds_needed(difference: float, deviation: float, alpha: float = ALPHA) -> int | None:
    """The number of seeds with which a paired t-test finds this difference with a probability of 80 %.

    None if the deviation is unknown or the number is above 100,000.
    """
    if not deviation > 0:
        return None
    low, high = 1, 2
    while power(difference, deviation, high, alpha) < POWER:
        low, high = high, 2 * high
        if high > _MAX_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, deviation, middle, alpha) >= POWER else (middle, high)
    return high


def share_needed(
    shares_P: Sequence[float] | Float[np.ndarray, "P"],
    accuracy_SxP: Float[np.ndarray, "S P"],
    goal_S: Float[np.ndarray, "S"],
) -> Ratio:
    """The share of the reference's clips (or labels) with which a recipe reaches the reference's accuracy.

    Between probes, curves are interpolated over the logarithm of the share by monotone cubics (PCHIP). The estimate is
    where the mean curve, made monotone by isotonic regression, reaches the mean goal. The confidence set contains every
    share at which the paired difference, accuracy − goal on the same seeds, has a t-interval that includes 0. This
    inverts a test at each share, as Fieller's interval of a ratio does. It needs no bootstrap, which is too narrow with
    few seeds, and no value for seeds that do not reach the goal: if the goal may not be reached, the share has no
    upper bound. Between the first two probes nothing is known of the curve's shape, so bounds there are widened to the
    probes.

    Args:
        shares_P: ascending shares at which the recipe was probed, above 0, at least two.
        accuracy_SxP: accuracies of the recipe.
        goal_S: final accuracies of the reference, on the same seeds.
    """
    log_P = np.log(np.asarray(shares_P, np.float64))
    first, second, last = (float(shares_P[probe]) for probe in (0, 1, -1))
    parts = [np.linspace(a, b, _GRID, endpoint=False) for a, b in itertools.pairwise(log_P)]
    log_G = np.concatenate([*parts, log_P[-1:]])
    monotone_P = optimize.isotonic_regression(accuracy_SxP.mean(axis=0)).x
    rows = np.concatenate([accuracy_SxP, monotone_P[None]])
    *curve_SxG, monotone_G = interpolate.PchipInterpolator(log_P, rows, axis=1)(log_G)
    value = _crossing(log_G, monotone_G - goal_S.mean())
    seeds = len(goal_S)
    if seeds < 2:
        return Ratio(value, 0.0, np.inf, first, last, seeds)
    ahead_SxG = np.asarray(curve_SxG) - goal_S[:, None]
    mean_G, half_G, _ = t_test(ahead_SxG)
    low, high = 0.0, np.inf
    if (behind_G := mean_G + half_G < 0)[0]:
        low = last if behind_G.all() else float(np.exp(log_G[np.argmin(behind_G)]))
        low = first if low < second else low
    if (ahead_G := mean_G - half_G > 0)[-1]:
        open_G = np.flatnonzero(~ahead_G)
        high = max(second, float(np.exp(log_G[open_G[-1] + 1]))) if len(open_G) else first
    return Ratio(value, low, high, first, last, seeds)


def _crossing(log_G: Float[np.ndarray, "G"], ahead_G: Float[np.ndarray, "G"]) -> float:
    """The share at which an ascending curve becomes positive; inf if it does not."""
    reached_G = ahead_G >= -1e-12
    return float(np.exp(log_G[np.argmax(reached_G)])) if reached_G.any() else np.inf


class Ellipse(NamedTuple):
    """A 95 % confidence ellipse of a mean in two dimensions; its semi-axes are vectors."""

    center: tuple[float, float]
    major: tuple[float, float]
    minor: tuple[float, float]


ELLIPSE_SEEDS = 4  # with 3 the region is 16 standard deviations wide


def ellipse(values_Sx2: Float[np.ndarray, "S 2"]) -> Ellipse | None:
    """Hotelling's confidence region of the mean; None for fewer than 4 seeds."""
    seeds = len(values_Sx2)
    if seeds < ELLIPSE_SEEDS:
        return None
    scale = 2 * (seeds - 1) / (seeds * (seeds - 2)) * stats.f.isf(ALPHA, 2, seeds - 2)
    variances, vectors = np.linalg.eigh(np.cov(values_Sx2.T))
    axes = vectors * np.sqrt(np.maximum(variances, 0) * scale)
    axes = axes * np.where(axes.sum(axis=0) < 0, -1, 1)  # the sign of an eigenvector is arbitrary
    center, minor, major = values_Sx2.mean(axis=0), axes[:, 0], axes[:, 1]
    return Ellipse(tuple(center.tolist()), tuple(major.tolist()), tuple(minor.tolist()))
