import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_jax.probing import labels, selection

KEY = jax.random.key(0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=12, max_size=80), st.sampled_from([0.1, 0.3, 0.5]))
def test_a_split_is_one(values, share):
    label = np.array(values, np.int32)
    fit, held = selection.hold_out(label, share, KEY)
    assert sorted([*fit, *held]) == list(range(len(label)))
    assert (np.diff(fit) > 0).all()
    assert (np.diff(held) > 0).all()
    assert set(label[fit]) == set(values), "every class keeps a row to train on"
    assert len(held) == min(round(share * len(values)), len(values) - len(set(values)))


def test_classes_are_held_out_alike():
    label = np.repeat(np.arange(4), [100, 40, 60, 200])
    _, held = selection.hold_out(label, 0.1, KEY)
    np.testing.assert_allclose(np.bincount(label[held]), [10, 4, 6, 20], atol=1)


def test_split_follows_the_key_alone():
    label = np.arange(100) % 5
    _, first = selection.hold_out(label, 0.2, KEY)
    np.testing.assert_array_equal(first, selection.hold_out(label, 0.2, KEY).held)
    assert set(first) != set(selection.hold_out(label, 0.2, jax.random.key(1)).held)


@pytest.mark.parametrize("label", [[0, 1, 2], [0, 0, 1]])
def test_too_few_rows_to_hold_any_out(label):
    with pytest.raises(labels.LabelError, match=r"of 3 training clips .* a share of 0.1 cannot be held out"):
        selection.hold_out(np.array(label), 0.1, KEY)
