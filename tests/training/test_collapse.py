"""Spread and effective rank of features with known values, and the alarm for collapsed ones."""

import numpy as np
import pytest

from jepa_jax.config import Config
from jepa_jax.settings import parse
from jepa_jax.training import collapse


def test_rank_counts_equal_directions():
    assert collapse.rank_me(np.eye(12)[:, :8]) == pytest.approx(8, rel=1e-4)
    assert collapse.rank_me(np.outer(np.arange(1.0, 7), np.arange(1.0, 5))) == pytest.approx(1, abs=1e-3)


def test_rank_of_unequal_directions_is_fractional():
    """For singular values 3 and 1 it is the exponential of the entropy of (0.75, 0.25)."""
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert collapse.rank_me(np.diag([3.0, 1.0])) == pytest.approx(expected, rel=1e-4)


def test_spread_of_equal_tokens_is_zero():
    same = np.tile(np.arange(5.0), (7, 1))
    assert collapse.feature_std(same) == 0
    assert collapse.feature_std(np.array([[0.0, 0.0], [2.0, 4.0]])) == pytest.approx(1.5)


def test_alarm_reports_only_collapsed_features():
    healthy = np.random.default_rng(0).normal(size=(64, 16))
    assert collapse.alarm(collapse.measure({"target": healthy, "context": healthy})) is None
    message = collapse.alarm(collapse.measure({"target": healthy, "context": np.ones((64, 16)) + 1e-4 * healthy}))
    assert message is not None
    assert "feature_std/context" in message
    assert "target" not in message.split("Try")[0]


@pytest.mark.parametrize(
    ("settings", "included", "excluded"),
    [
        ({}, "--config.ema.decay nearer 1 than 0.99925", "target=ema"),
        ({"ema": {"enabled": False}}, "--config.target=ema", "ema.decay"),
        ({"ema": {"decay": 1.0}}, "--config.optim.peak_lr", "ema."),
        ({"objectives": {"prediction": {}}}, "--config.objectives.sigreg.coefficient", "target=ema"),
        ({"objectives": {"prediction": {}, "sigreg": {}}}, "--config.batch_size", "sigreg"),
    ],
)
def test_advice_depends_on_the_settings(settings, included, excluded):
    message = collapse.alarm({"feature_std/target": 0.0}, parse(Config, settings))
    assert message is not None
    assert included in message
    assert excluded not in message
