import dataclasses
import re

import numpy as np
import pytest

from jepa_jax.config import SourceConfig
from jepa_jax.data import sources, sprites
from jepa_jax.evaluation import probe_runs
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.features.extractor import FeatureExtractor
from jepa_jax.evaluation.features.feature_set import Features
from jepa_jax.evaluation.probes import splits
from jepa_jax.settings import ConfigError

FILES = EvalConfig(train=SourceConfig(path="somewhere"), fold_by=r"seq(\d+)")
NAMES = [f"{action}/seq{sequence:02}.avi" for action in ("hug", "kick") for sequence in range(1, 8)]


def features(seed, count=6, items=None):
    rng = np.random.default_rng(seed)
    labels = {task: rng.integers(len(names), size=count).astype(np.int32) for task, names in sprites.CLASSES.items()}
    tokens = {"mean": rng.normal(size=(count, 3)), "mean_levels": rng.normal(size=(count, 4))}
    return Features(tokens, labels, np.arange(count, dtype=np.int32) if items is None else items, 0.0)


def test_reversed_clips_use_the_trained_probe_and_reversed_labels():
    train = {"trained": features(0), "untrained": features(1)}
    test = {"trained": features(2), "untrained": features(3), "reversed": features(4)}
    first, second = probe_runs.make_probe_inputs(train, test, kind=sources.CLASSES["sprites"])
    assert first.train is train["trained"]
    assert list(first.tests) == ["trained", "reversed"]
    assert list(second.tests) == ["untrained"]
    original, reversed_labels = test["reversed"].labels, first.tests["reversed"].labels
    np.testing.assert_array_equal(reversed_labels["order"], np.array(sprites.REVERSE_ORDER)[original["order"]])
    np.testing.assert_array_equal(reversed_labels["motion"], np.array(sprites.REVERSE_MOTION)[original["motion"]])
    np.testing.assert_array_equal(reversed_labels["appearance"], original["appearance"])
    np.testing.assert_array_equal(first.tests["reversed"].tokens["mean"], test["reversed"].tokens["mean"])


def test_channel_halves_are_separate_inputs_unless_empty():
    train, test = {"trained": features(0)}, {"trained": features(1)}
    whole, half = probe_runs.make_probe_inputs(train, test, {"a": np.array([1, 3]), "b": np.array([], int)})
    np.testing.assert_array_equal(half.train.tokens["mean"], train["trained"].tokens["mean_levels"][:, [1, 3]])
    assert list(half.tests) == ["a"]
    assert list(whole.tests) == ["trained"]


def test_every_item_is_held_out_once_together_with_its_group():
    for number, sizes in ((0, [2] * 7), (3, [6, 4, 4]), (7, [2] * 7)):
        folds = splits.outer_folds(dataclasses.replace(FILES, folds=number), NAMES)
        assert [len(fold) for fold in folds] == sizes
        assert sorted(np.concatenate(folds)) == list(range(14))
        for fold in folds:
            held = {NAMES[item][-6:] for item in fold}
            assert not held & {NAMES[item][-6:] for item in set(range(14)) - set(fold.tolist())}


def test_expression_without_a_group_uses_the_whole_match():
    folds = splits.outer_folds(dataclasses.replace(FILES, fold_by="^[a-z]+"), NAMES)
    assert [fold.tolist() for fold in folds] == [list(range(7)), list(range(7, 14))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold_by": "nowhere"}, "config.fold_by: 'nowhere' does not match 'hug/seq01.avi'"),
        ({"fold_by": "avi"}, "1 groups ('avi', …) in 1 folds"),
        ({"folds": 8}, "7 groups ('01', '02', '03', '04', '05', …) in 8 folds"),
        ({"folds": 1}, "in 1 folds; at least two"),
    ],
)
def test_invalid_folds_raise(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        splits.outer_folds(dataclasses.replace(FILES, **changes), NAMES)


def test_fold_trains_on_all_other_clips_if_some_are_missing():
    items = np.array([0, 1, 3, 4, 5, 9], np.int32)  # the others could not be decoded
    whole = features(0, items=items)
    part = probe_runs.hold_out(probe_runs.ProbeInput(whole, {"trained": whole}), np.array([1, 2, 3, 9]))
    np.testing.assert_array_equal(part.train.items, [0, 4, 5])
    np.testing.assert_array_equal(part.train.tokens["mean"], whole.tokens["mean"][[0, 3, 4]])
    held = part.tests["trained"]
    np.testing.assert_array_equal(held.items, [1, 3, 9])
    np.testing.assert_array_equal(held.labels["order"], whole.labels["order"][[1, 2, 5]])


def test_reversed_control_without_reversible_labels_raises():
    config = EvalConfig(test=SourceConfig(kind="videos"), controls=("reversed",))
    with pytest.raises(ConfigError, match=r"config\.controls: 'reversed' needs clips with known labels"):
        probe_runs.control_encoders(config, FeatureExtractor(lambda *_: {}, {}, {}))


def test_training_groups_come_from_the_expression_or_the_folds():
    by_sequence = splits.training_groups(EvalConfig(groups=r"seq(\d+)"), NAMES)
    assert by_sequence.tolist() == [*range(7), *range(7)]
    np.testing.assert_array_equal(splits.training_groups(FILES, NAMES), by_sequence)
    by_action = splits.training_groups(dataclasses.replace(FILES, groups="^[a-z]+"), NAMES)
    assert by_action.tolist() == [0] * 7 + [1] * 7
    assert splits.training_groups(EvalConfig(), NAMES) is None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("nowhere", "config.groups: 'nowhere' does not match 'hug/seq01.avi'"),
        ("avi", "config.groups: 'avi' matches 'avi' in every training clip"),
        ("(", "config.groups: '(' is not a regular expression"),
    ],
)
def test_invalid_groups_raise(expression, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        splits.training_groups(EvalConfig(groups=expression), NAMES)
