import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_jax.probing import intervals


def answers(*shares, items=1000, seed=0):
    """Probe seeds that are right about these shares of items."""
    return np.random.default_rng(seed).random((len(shares), items)) < np.array(shares)[:, None]


def test_interval_agrees_with_resampling_item_by_item():
    correct = answers(0.6, 0.7, items=80)
    rng = np.random.default_rng(1)
    means = [correct[:, rng.integers(80, size=80)].mean() for _ in range(4000)]
    np.testing.assert_allclose(intervals.interval(correct), np.quantile(means, [0.025, 0.975]), atol=0.012)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_interval_of_one_seed_is_that_of_a_proportion(share):
    correct = answers(share, items=4000)
    half = 1.96 * np.sqrt(correct.mean() * (1 - correct.mean()) / 4000)
    low, high = intervals.interval(correct)
    assert low == pytest.approx(correct.mean() - half, abs=1e-3)
    assert high == pytest.approx(correct.mean() + half, abs=1e-3)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """400 test sets of an accuracy of 70 %: the share of intervals that hold it has a standard error of 1.1 %."""
    held = [
        low <= 0.7 <= high for low, high in (intervals.interval(answers(0.7, items=300, seed=i)) for i in range(400))
    ]
    assert 0.91 < np.mean(held) < 0.98


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(1, 3), st.integers(0, 2**31))
def test_interval_holds_the_accuracy(items, seeds, seed):
    correct = np.random.default_rng(seed).random((seeds, items)) < 0.5
    low, high = intervals.interval(correct)
    assert 0 <= low <= correct.mean() + 1e-12
    assert correct.mean() - 1e-12 <= high <= 1


def test_no_difference_from_oneself():
    correct = answers(0.6)
    assert intervals.paired_difference(correct, correct) == (0, 0, 0)
    assert not intervals.paired_difference(correct, correct).clear


def test_pairing_sees_what_is_hidden_otherwise():
    """Two probes that disagree about 30 of 1,000 items only, on which one is always right."""
    theirs = answers(0.5)
    ours = theirs.copy()
    ours[0, np.flatnonzero(~theirs[0])[:30]] = True
    paired, unpaired = (f(ours, theirs) for f in (intervals.paired_difference, intervals.unpaired_difference))
    assert paired.value == unpaired.value == pytest.approx(0.03)
    assert paired.clear
    assert not unpaired.clear


def test_probe_seeds_are_noise_too():
    """Two seeds of 40 and 60 % against one of 50 %: items alone would be sure of the sign far too often."""
    one = answers(0.5, items=10_000)
    pair = np.stack([answers(0.4, items=10_000, seed=1)[0], answers(0.7, items=10_000, seed=2)[0]])
    difference = intervals.paired_difference(pair, one)
    assert difference.value == pytest.approx(0.05, abs=0.01)
    assert not difference.clear


def test_difference_changes_sign_with_the_order():
    a, b = answers(0.6, items=300), answers(0.5, 0.5, items=300, seed=1)
    forth, back = intervals.paired_difference(a, b), intervals.paired_difference(b, a)
    assert forth.value == -back.value
    np.testing.assert_allclose([forth.low, forth.high], [-back.high, -back.low], atol=0.01)
