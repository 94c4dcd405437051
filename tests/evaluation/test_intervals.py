import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jepa_jax.evaluation.results import intervals

SIMULATIONS = 600


def answers(*shares, items=1000, seed=0):
    """Answers of probe seeds that are correct on these shares of items."""
    return np.random.default_rng(seed).random((len(shares), items)) < np.array(shares)[:, None]


def simulated(accuracy, items, seeds, rng, difficulty_I=None, seed_deviation=0.2):
    """Answers from a probit model with random effects of items and, if there are several, of probe seeds."""
    if accuracy == 1:
        return np.ones((seeds, items), bool), None
    difficulty_I = rng.normal(0, 1.5, items) if difficulty_I is None else difficulty_I
    deviation = seed_deviation if seeds > 1 else 0.0
    center = stats.norm.ppf(accuracy) * np.sqrt(1 + 1.5**2 + deviation**2)
    skill_S = rng.normal(0, deviation, (seeds, 1))
    return center + difficulty_I + skill_S + rng.normal(size=(seeds, items)) > 0, difficulty_I


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("items", [10, 24, 100, 1024])
def test_intervals_have_nominal_coverage(items, seeds):
    rng = np.random.default_rng(items + seeds)
    for accuracy in (0.1, 0.5, 0.8, 1.0):
        found = (intervals.interval(simulated(accuracy, items, seeds, rng)[0]) for _ in range(SIMULATIONS))
        held = [low <= accuracy <= high for low, high in found]
        assert np.mean(held) >= 0.93, accuracy


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("items", [10, 24, 100, 1024])
def test_false_positive_rate_of_differences_is_nominal(items, seeds):
    """At a true rate of 5 %, the share in 1,200 pairs has a standard error of 0.6 points."""
    rng = np.random.default_rng(items + seeds)
    paired, unpaired = [], []
    for accuracy in (0.2, 0.9):
        for _ in range(SIMULATIONS):
            ours, difficulty_I = simulated(accuracy, items, seeds, rng)
            theirs, _ = simulated(accuracy, items, seeds, rng, difficulty_I)
            others, _ = simulated(accuracy, items, seeds, rng)
            paired.append(intervals.paired_difference(ours, theirs).significant)
            unpaired.append(intervals.unpaired_difference(ours, others).significant)
    assert np.mean(paired) <= 0.06
    assert np.mean(unpaired) <= 0.06


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_of_differences_have_nominal_coverage(seeds):
    rng = np.random.default_rng(seeds)
    for items in (24, 300):
        held = []
        for _ in range(SIMULATIONS):
            ours, difficulty_I = simulated(0.8, items, seeds, rng)
            theirs, _ = simulated(0.7, items, seeds, rng, difficulty_I)
            _, low, high = intervals.paired_difference(ours, theirs)
            held.append(low <= 0.1 <= high)
        assert np.mean(held) >= 0.93


@pytest.mark.parametrize(("right", "items"), [(0, 10), (3, 10), (10, 10), (17, 24), (600, 1000)])
def test_interval_of_one_seed_is_exact(right, items):
    correct = np.arange(items)[None] < right
    np.testing.assert_allclose(intervals.interval(correct), stats.binomtest(right, items).proportion_ci(), atol=1e-9)


def test_interval_of_perfect_accuracy_is_not_a_point():
    for seeds in (1, 3):
        low, high = intervals.interval(np.ones((seeds, 10), bool))
        assert (low, high) == (pytest.approx(0.025 ** (1 / 10)), 1)
    _, low, high = intervals.paired_difference(np.ones((1, 10), bool), np.ones((3, 10), bool))
    assert low < -0.1
    assert high > 0.1


def test_differing_seeds_widen_the_interval():
    alike, apart = answers(0.6, 0.6, 0.6, items=5000), answers(0.5, 0.6, 0.7, items=5000)
    narrow, wide = (high - low for low, high in map(intervals.interval, (alike, apart)))
    assert wide > 4 * narrow


def test_seeds_do_not_replace_items():
    """Ten seeds with the same answers carry as much information as one."""
    one = answers(0.6, items=100)
    np.testing.assert_allclose(intervals.interval(np.repeat(one, 10, axis=0)), intervals.interval(one), atol=0.005)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 4), st.floats(0, 1), st.integers(0, 2**31))
def test_interval_contains_the_accuracy(items, seeds, share, seed):
    correct = np.random.default_rng(seed).random((seeds, items)) < share
    low, high = intervals.interval(correct)
    assert 0 <= low <= correct.mean() + 1e-12
    assert correct.mean() - 1e-12 <= high <= 1


def test_probe_does_not_differ_significantly_from_itself():
    correct = answers(0.6)
    difference = intervals.paired_difference(correct, correct)
    assert difference.value == 0
    assert -0.005 < difference.low < 0 < difference.high < 0.005
    assert not difference.significant


def test_paired_significance_matches_mcnemars_test():
    """For probes with one seed and enough items on which the answers differ."""
    for ours_alone, theirs_alone in [(30, 10), (26, 14), (25, 15), (40, 40), (60, 35), (55, 38)]:
        ours, theirs = np.zeros((2, 1, 500), bool)
        ours[0, :ours_alone] = True
        theirs[0, ours_alone : ours_alone + theirs_alone] = True
        p = stats.binomtest(ours_alone, ours_alone + theirs_alone).pvalue
        assert not 0.03 < p < 0.07
        assert intervals.paired_difference(ours, theirs).significant == (p < 0.05)


def test_paired_difference_detects_what_the_unpaired_one_misses():
    """Two probes differ on only 30 of 1,000 items, and one of them is always correct there."""
    theirs = answers(0.5)
    ours = theirs.copy()
    ours[0, np.flatnonzero(~theirs[0])[:30]] = True
    paired, unpaired = (f(ours, theirs) for f in (intervals.paired_difference, intervals.unpaired_difference))
    assert paired.value == unpaired.value == pytest.approx(0.03)
    assert paired.significant
    assert not unpaired.significant


def test_differences_include_variance_between_probe_seeds():
    """Compares two seeds (40 and 70 %) with one (50 %). Item variance alone would make this significant."""
    one = answers(0.5, items=10_000)
    pair = np.stack([answers(0.4, items=10_000, seed=1)[0], answers(0.7, items=10_000, seed=2)[0]])
    difference = intervals.paired_difference(pair, one)
    assert difference.value == pytest.approx(0.05, abs=0.01)
    assert not difference.significant


def test_difference_is_antisymmetric():
    a, b = answers(0.6, items=300), answers(0.5, 0.5, items=300, seed=1)
    forth, back = intervals.paired_difference(a, b), intervals.paired_difference(b, a)
    assert forth.value == -back.value
    np.testing.assert_allclose([forth.low, forth.high], [-back.high, -back.low], atol=1e-12)
