import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jepa_jax.evaluation.probes import splits

KEY = jax.random.key(0)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=12, max_size=80), st.sampled_from([0.1, 0.3, 0.5]))
def test_hold_out_partitions_rows_and_keeps_every_class(values, share):
    label = np.array(values, np.int32)
    fit, held = splits.hold_out(label, share, KEY)
    assert sorted([*fit, *held]) == list(range(len(label)))
    assert (np.diff(fit) > 0).all()
    assert (np.diff(held) > 0).all()
    assert set(label[fit]) == set(values), "every class must keep a training row"
    assert len(held) == min(round(share * len(values)), len(values) - len(set(values)))


def test_classes_are_held_out_in_proportion():
    label = np.repeat(np.arange(4), [100, 40, 60, 200])
    _, held = splits.hold_out(label, 0.1, KEY)
    np.testing.assert_allclose(np.bincount(label[held]), [10, 4, 6, 20], atol=1)


def test_split_depends_only_on_the_key():
    label = np.arange(100) % 5
    _, first = splits.hold_out(label, 0.2, KEY)
    np.testing.assert_array_equal(first, splits.hold_out(label, 0.2, KEY).held)
    assert set(first) != set(splits.hold_out(label, 0.2, jax.random.key(1)).held)


@pytest.mark.parametrize("label", [[0, 1, 2], [0, 0, 1]])
def test_too_few_rows_to_hold_out_raise(label):
    with pytest.raises(splits.LabelError, match=r"of 3 training clips .* a share of 0.1 cannot be held out"):
        splits.hold_out(np.array(label), 0.1, KEY)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=12, max_size=80), st.sampled_from([0.1, 0.2, 0.5]))
def test_cross_validation_holds_out_every_row_once_and_is_stratified(values, share):
    label = np.array(values, np.int32)
    cross_validation = splits.validation_splits(label, share, KEY, every=True)
    assert len(cross_validation) == round(1 / share)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([split.held for split in cross_validation])), np.arange(len(label))
    )
    counts = np.array([np.bincount(label[split.held], minlength=5) for split in cross_validation])
    assert (np.ptp(counts, axis=0) <= 1).all()
    for fit, held in cross_validation:
        np.testing.assert_array_equal(np.setdiff1d(np.arange(len(label)), held), fit)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=12, max_size=80), st.booleans())
def test_rows_of_a_group_are_held_out_together(pairs, every):
    label, group = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    assume(len(set(group)) > 1)
    try:
        cross_validation = splits.validation_splits(label, 0.25, KEY, group, every=every)
    except splits.LabelError:
        assert not every  # a single split must keep training rows of every class
        return
    for fit, held in cross_validation:
        assert len(fit)
        assert len(held)
        assert not set(group[fit]) & set(group[held])
        assert every or set(label[fit]) == set(label)
    if every:
        assert len(cross_validation) == min(4, len(set(group)))
        assert sorted(np.concatenate([split.held for split in cross_validation])) == list(range(len(label)))


def test_grouped_folds_are_balanced_by_class_and_size():
    """20 groups of 6 rows: half have classes 0 to 2, half have classes 3 to 5."""
    group = np.repeat(np.arange(20), 6)
    label = np.tile(np.arange(3), 40) + 3 * (group % 2)
    for _, held in splits.validation_splits(label, 0.2, KEY, group, every=True):
        np.testing.assert_array_equal(np.bincount(label[held], minlength=6), [4] * 6)


def test_single_group_is_ignored():
    label = np.arange(40) % 4
    for every in (True, False):
        plain = splits.validation_splits(label, 0.2, KEY, every=every)
        grouped = splits.validation_splits(label, 0.2, KEY, np.zeros(40, int), every=every)
        for one, other in zip(plain, grouped, strict=True):
            np.testing.assert_array_equal(one.held, other.held)


def test_groups_that_cannot_be_held_out_raise():
    with pytest.raises(
        splits.LabelError, match=r"whole groups .* \(config.groups\).* leave some class without training clips"
    ):
        splits.validation_splits(np.array([0, 0, 1, 1]), 0.5, KEY, np.array([0, 0, 1, 1]), every=False)
