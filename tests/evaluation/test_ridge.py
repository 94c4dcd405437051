import numpy as np
import pytest

from jepa_jax.evaluation.features.rows import Standardizer
from jepa_jax.evaluation.probes import ridge

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(60, 5)) * [1, 2, 3, 4, 5] + 7).astype(np.float32)
LABELS = np.arange(60, dtype=np.int32) % 3
TARGETS = ridge.class_indicators(LABELS, 3)
SCALE = Standardizer(np.zeros(5, np.float32), np.ones(5, np.float32))


def test_ridge_solves_the_normal_equations():
    penalty, fit = 0.1, np.arange(0, 60, 2)
    scores = ridge.fit(X, fit, TARGETS, (penalty, 1.0), SCALE)(X)
    x, y = X[fit].astype(np.float64), np.eye(3)[LABELS[fit]]
    centred, targets = x - x.mean(0), y - y.mean(0)
    covariance = centred.T @ centred / len(fit)
    weights = np.linalg.solve(
        covariance + penalty * np.trace(covariance) / 5 * np.eye(5), centred.T @ targets / len(fit)
    )
    assert scores.shape == (1, 2, 60, 3)
    np.testing.assert_allclose(scores[0, 0], (X - x.mean(0)) @ weights + y.mean(0), atol=1e-9)


def test_penalty_does_not_depend_on_feature_scale():
    fit = np.arange(60)
    plain, large = (ridge.fit(x, fit, TARGETS, (0.1,), SCALE)(x) for x in (X, 1000 * X))
    np.testing.assert_allclose(plain, large, atol=1e-4)


def test_large_penalty_predicts_the_class_frequencies():
    scores = ridge.fit(X, np.arange(50), TARGETS, (1e9,), SCALE)(X)
    np.testing.assert_allclose(scores[0, 0], np.tile(np.bincount(LABELS[:50]) / 50, (60, 1)), atol=1e-6)


@pytest.mark.parametrize("batch", [7, 60])
def test_fit_does_not_depend_on_batch_size(monkeypatch, batch):
    expected = ridge.fit(X, np.arange(60), TARGETS, (0.1,), SCALE)(X)
    monkeypatch.setattr(ridge, "BATCH", batch)
    np.testing.assert_allclose(ridge.fit(X, np.arange(60), TARGETS, (0.1,), SCALE)(X), expected, atol=1e-9)


def test_constant_features_give_finite_scores():
    constant = np.ones_like(X)
    assert np.isfinite(ridge.fit(constant, np.arange(60), TARGETS, (1e-3,), SCALE)(constant)).all()
