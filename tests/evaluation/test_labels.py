import numpy as np
import pytest

from jepa_jax.evaluation.probes import splits

NAMES = ("bow", "hug", "kick", "wave")


def ints(*values):
    return np.array(values, np.int32)


def test_only_classes_of_the_training_set_are_used():
    train, test, classes = splits.seen_classes("class", ints(3, 1, 3), ints(1, 1, 3), NAMES)
    np.testing.assert_array_equal(train, [1, 0, 1])
    np.testing.assert_array_equal(test, [0, 0, 1])
    assert classes == ("hug", "wave")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (ints(1, 1), ints(1), "all training clips are of class 'hug'"),
        (ints(0, 1), ints(2, 0, 3), "no training clip is of class 'kick', 'wave', .* training has 'bow', 'hug'"),
        (ints(0, 4), ints(0), r"1 of 2 training clips have a label \(4\) that is not a class"),
        (ints(2), ints(2, 2), "all training clips are of class 'kick'"),
        (ints(0, 1), ints(-1, 0), r"1 of 2 test clips have a label \(-1\)"),
    ],
)
def test_invalid_labels_raise(train, test, message):
    with pytest.raises(splits.LabelError, match=f"order: {message}"):
        splits.seen_classes("order", train, test, NAMES)
