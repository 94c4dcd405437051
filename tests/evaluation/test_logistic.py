"""Logistic regression against scikit-learn's, on its handwritten digits."""

import dataclasses

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from jepa_jax.evaluation.eval_config import ProbeConfig, logistic_probe
from jepa_jax.evaluation.features.rows import Standardizer
from jepa_jax.evaluation.probes import fitting, logistic, splits
from jepa_jax.settings import ConfigError

KEY = jax.random.key(0)
DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS, LABELS = DIGITS.astype(np.float32), LABELS.astype(np.int32)
ORDER = np.random.default_rng(0).permutation(len(DIGITS))
TEST = ORDER[1200:]


@pytest.fixture(autouse=True)
def _exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def standardised(count):
    """Training and test digits, standardised by the training digits."""
    train = DIGITS[ORDER[:count]]
    deviation = train.std(0)
    deviation[deviation == 0] = 1
    return (train - train.mean(0)) / deviation, (DIGITS[TEST] - train.mean(0)) / deviation


def problem(x, labels, classes=10, width=10):
    channels = x.shape[1]
    scale = Standardizer(np.zeros(channels, np.float32), np.ones(channels, np.float32))
    return logistic.Problem(x, labels, classes, width, scale)


@pytest.mark.slow
@pytest.mark.parametrize("count", [30, 100, 300, 1200])
def test_default_probe_is_within_one_point_of_scikit_learn(count):
    train, labels = DIGITS[ORDER[:count]], LABELS[ORDER[:count]]
    found = fitting.run(logistic_probe(), train, labels, {"test": DIGITS[TEST]}, 10, KEY)
    x, x_test = standardised(count)
    theirs = [LogisticRegression(C=c, max_iter=3000).fit(x, labels).score(x_test, LABELS[TEST]) for c in (0.1, 1, 10)]
    ours = np.mean(found.predicted["test"] == LABELS[TEST])
    assert ours >= max(theirs) - 0.01
    assert found.converged is True


@pytest.mark.parametrize(("count", "c"), [(30, 1.0), (300, 0.1), (1200, 1.0)])
def test_probabilities_match_scikit_learn(count, c):
    """Also with fewer clips than channels, and with a class without clips."""
    (x, x_test), labels = standardised(count), LABELS[ORDER[:count]]
    theirs = LogisticRegression(C=c, tol=1e-8, max_iter=20_000).fit(x, labels)
    penalty = float(1 / (c * count * x.var(axis=0).mean()))
    fitted = problem(x, labels).fit(penalty, np.arange(count))
    ours = fitted.scores(x_test)[0, 0]
    np.testing.assert_allclose(ours[:, theirs.classes_], theirs.predict_proba(x_test), atol=0.01)
    assert (np.delete(ours, theirs.classes_, axis=1) < 1e-3).all()


def test_penalty_does_not_depend_on_feature_scale():
    x, x_test = standardised(100)
    plain, large = (
        problem(scale * x, LABELS[ORDER[:100]]).fit(1e-2, np.arange(100)).scores(scale * x_test) for scale in (1, 1000)
    )
    np.testing.assert_allclose(plain, large, atol=1e-3)


def test_correlated_channels_converge_in_few_steps(monkeypatch):
    """200 channels mix 10 signals, whose variances span eight orders of magnitude, plus a little noise."""
    monkeypatch.setattr(logistic, "MAX_STEPS", 100)
    rng = np.random.default_rng(0)
    labels = np.arange(600, dtype=np.int32) % 5
    hidden = (rng.normal(size=(600, 10)) + 2 * np.eye(5, 10)[labels]) * 10.0 ** -np.linspace(0, 4, 10)
    x = np.float32(hidden @ rng.normal(size=(10, 200)) + 1e-5 * rng.normal(size=(600, 200)))
    assert problem(x, labels, 5, 5).fit(1e-3, np.arange(600)).converged


def test_held_out_rows_have_no_influence():
    x, _ = standardised(300)
    labels, fit = LABELS[ORDER[:300]], np.arange(0, 300, 2)
    scores = [problem(x, y).fit(1e-2, fit).scores(x) for y in (labels, labels[np.arange(300) // 2 * 2])]
    np.testing.assert_array_equal(*scores)


def test_cross_validation_scores_the_held_out_rows_of_each_split():
    x, _ = standardised(300)
    labels = LABELS[ORDER[:300]]
    folds = splits.validation_splits(labels, 0.25, KEY, every=True)
    tried = problem(x, labels).cross_validate((1e-2, 1.0, 1e-1), folds)
    assert [one.penalty for one in tried] == [1.0, 1e-1, 1e-2]
    for one in tried:
        probability = np.empty(300)
        correct = np.empty(300)
        for fit, held in folds:
            scores = problem(x, labels).fit(one.penalty, fit).scores(x[held])[0, 0]
            probability[held] = scores[np.arange(len(held)), labels[held]]
            correct[held] = scores.argmax(-1) == labels[held]
        assert one.cross_entropy == pytest.approx(-np.log(probability).mean(), abs=2e-3)
        assert one.accuracy == pytest.approx(correct.mean(), abs=0.01)


def test_cross_validation_stops_when_weaker_penalties_do_worse():
    """Labels are independent of the features, so the strongest penalty is best."""
    x, _ = standardised(100)
    shuffled = np.random.default_rng(1).permutation(LABELS[ORDER[:100]])
    config = dataclasses.replace(logistic_probe(), penalty=(1e-3, 1e-2, 1e-1, 1.0, 100.0))
    found = fitting.run(config, x, shuffled, {}, 10, KEY)
    tried = [one["penalty"] for one in found.validation]
    assert tried == [100.0, 1.0, 1e-1, 1e-2, 1e-3][: len(tried)]
    assert len(tried) < 5
    assert found.chosen == {"penalty": 100.0}


def test_padded_classes_are_never_predicted():
    x, x_test = standardised(100)
    labels = LABELS[ORDER[:100]] % 3
    narrow, wide = (problem(x, labels, 3, width).fit(1e-2, np.arange(100)).scores(x_test) for width in (3, 10))
    assert wide.shape == (1, 1, len(TEST), 3)
    np.testing.assert_allclose(narrow, wide, atol=1e-3)


def test_penalties_folds_and_label_sets_share_a_compiled_program():
    x, _ = standardised(100)
    problem(x, LABELS[ORDER[:100]]).fit(1e-2, np.arange(100))
    with jax.no_tracing():
        other = problem(x[:99], LABELS[ORDER[:99]] % 4, 4)
        other.cross_validate((0.3, 0.1), [splits.Split(np.arange(50), np.arange(50, 99))])
        other.fit(0.2, np.arange(99))


def test_lack_of_convergence_is_reported(monkeypatch):
    monkeypatch.setattr(logistic, "MAX_STEPS", 3)
    train, labels = DIGITS[ORDER[:100]], LABELS[ORDER[:100]]
    config = dataclasses.replace(logistic_probe(), penalty=(1e-3,))
    assert fitting.run(config, train, labels, {"test": DIGITS[TEST]}, 10, KEY).converged is False
    monkeypatch.undo()
    assert fitting.run(config, train, labels, {"test": DIGITS[TEST]}, 10, KEY).converged is True
    other = fitting.run(ProbeConfig(kind="ridge"), train, labels, {"test": DIGITS[TEST]}, 10, KEY)
    assert other.converged is None


def test_constant_features_predict_the_class_frequencies():
    labels = np.array([0, 1, 1, 1, 2] * 4, np.int32)
    fitted = problem(np.ones((20, 4), np.float32), labels, 3, 3).fit(1e-3, np.arange(20))
    np.testing.assert_allclose(fitted.scores(np.ones((2, 4)))[0, 0], [[0.2, 0.6, 0.2]] * 2, atol=1e-4)


def test_features_that_do_not_fit_in_memory_raise(monkeypatch):
    monkeypatch.setattr(logistic, "MAX_BYTES", 100 * 64 * 4 - 1)
    x, _ = standardised(100)
    with pytest.raises(ConfigError, match=r"100 clips of 64 channels take .* GiB, more than .* Use kind='linear'"):
        problem(x, LABELS[ORDER[:100]])
    problem(x[:99], LABELS[ORDER[:99]])
