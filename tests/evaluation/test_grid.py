import dataclasses

import jax
import numpy as np
import pytest

from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.evaluation.features.rows import Standardizer
from jepa_jax.evaluation.probes import fitting, grid

KEY = jax.random.key(0)
CLASSES = 3
RNG = np.random.default_rng(0)
LABELS = np.arange(60, dtype=np.int32) % CLASSES
X = (RNG.normal(size=(60, 6)) + 1.5 * np.eye(CLASSES, 6)[LABELS]).astype(np.float32)
TEST = (RNG.normal(size=(50, 6)) + 1.5 * np.eye(CLASSES, 6)[np.arange(50) % CLASSES]).astype(np.float32)
CONFIG = ProbeConfig(epochs=3, batch_size=16, lr=(0.1, 0.01), weight_decay=(0.0, 0.5), seeds=2)
SCALE = Standardizer(np.zeros(6, np.float32), np.ones(6, np.float32))


def train(config, rows=X, labels=LABELS, classes=CLASSES, width=CLASSES, fit=None):
    fit = np.arange(len(rows)) if fit is None else fit
    scale = SCALE if rows.shape[-1] == 6 else Standardizer(np.zeros(1, np.float32), np.ones(1, np.float32))
    return grid.train(fitting.build_head(config, width), config, rows, fit, labels, classes, scale, KEY, "test")


def scores(config, *arguments, **options):
    return np.asarray(train(config, *arguments, **options).scores(TEST))


def test_each_probe_of_the_grid_equals_the_probe_trained_alone():
    whole = scores(CONFIG)
    assert whole.shape == (2, 4, 50, CLASSES)
    for number, setting in enumerate(CONFIG.settings()):
        alone = scores(dataclasses.replace(CONFIG.only(setting), seeds=1))
        np.testing.assert_allclose(alone[0, 0], whole[0, number], atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3, "seeds must differ"
    assert all(np.abs(whole[0, 0] - whole[0, i]).max() > 1e-3 for i in (1, 2, 3)), "settings must differ"


@pytest.mark.parametrize("changes", [{"at_once": 1}, {"at_once": 3, "micro_batch": 4}])
def test_smaller_chunks_of_the_grid_give_the_same_probes(changes):
    np.testing.assert_allclose(scores(dataclasses.replace(CONFIG, **changes)), scores(CONFIG), atol=1e-5)


def test_chunks_contain_every_row_once_per_epoch(monkeypatch):
    """Rows are read in four chunks. Each keeps its label."""
    monkeypatch.setattr(grid, "WHOLE_LIMIT", 0)
    monkeypatch.setattr(grid, "CHUNK_BYTES", 6 * 4 * 16)
    plan = grid.EpochPlan(CONFIG, X, np.arange(59), LABELS, KEY)
    assert plan.chunks == 4
    seen, rates = [], []
    for features, batches in plan.epoch(1, None):
        assert features.shape == (16, 6)
        for index, label, valid in zip(*batches[:3], strict=True):
            np.testing.assert_array_equal(
                LABELS[[np.flatnonzero((row == X).all(1))[0] for row in features[index[0]]]], label[0]
            )
            seen += [features[i].tobytes() for i in index[1][valid]]
        rates += [*batches.rate_J]
    assert sorted(seen) == sorted(row.tobytes() for row in X[:59])
    assert rates == [1, 1, 1, 1]


def test_training_on_chunked_features_gives_similar_predictions(monkeypatch):
    config = dataclasses.replace(CONFIG, epochs=20, lr=(0.1,), weight_decay=(0.0,))
    whole = scores(config)[0, 0].argmax(-1)
    monkeypatch.setattr(grid, "WHOLE_LIMIT", 0)
    monkeypatch.setattr(grid, "CHUNK_BYTES", 6 * 4 * 16)
    assert np.mean(scores(config)[0, 0].argmax(-1) == whole) > 0.9


def test_empty_batch_gives_finite_scores(monkeypatch):
    """33 rows in batches of 16, in two chunks of two batches: the fourth batch is empty."""
    monkeypatch.setattr(grid, "WHOLE_LIMIT", 0)
    monkeypatch.setattr(grid, "CHUNK_BYTES", 2 * 6 * 4 * 16)
    config = dataclasses.replace(CONFIG, epochs=1, lr=(0.1,), weight_decay=(5.0,), seeds=1)
    plan = grid.EpochPlan(config, X, np.arange(33), LABELS, KEY)
    counts = [batches.valid_JxB.any(axis=1).tolist() for _, batches in plan.epoch(0, None)]
    assert counts == [[True, True], [True, False]]
    found = train(config, fit=np.arange(33))
    assert np.asarray(jax.tree.leaves(found.params)[0]).size
    assert np.isfinite(np.asarray(found.scores(TEST))).all()


def test_cosine_schedule_decreases_to_zero():
    config = dataclasses.replace(CONFIG, schedule="cosine", epochs=2, batch_size=15)
    plan = grid.EpochPlan(config, X, np.arange(60), LABELS, KEY)
    rates = np.concatenate([batches.rate_J for epoch in (0, 1) for _, batches in plan.epoch(epoch, jax.numpy.zeros(1))])
    assert rates[0] == 1
    assert (np.diff(rates) < 0).all()
    assert rates[4] == pytest.approx(0.5), "half the rate after half of the training"
    np.testing.assert_allclose(rates[1:] + rates[:0:-1], 1, atol=1e-6, err_msg="a cosine is symmetric about its middle")
    np.testing.assert_allclose(rates[[1, 2]], [0.9619398, 0.8535534], atol=1e-6, err_msg="cos² of 1/16 and 1/8 π")


def test_padded_classes_are_never_predicted():
    padded = scores(CONFIG, width=9)
    assert padded.shape[-1] == 9
    assert not padded[..., CLASSES:].any()
    np.testing.assert_allclose(padded.sum(-1), 1, atol=1e-5)


def test_label_sets_share_a_compiled_program():
    train(CONFIG, width=5)
    two = (LABELS > 0).astype(np.int32)
    with jax.no_tracing():
        train(CONFIG, labels=two, classes=2, width=5)
        train(dataclasses.replace(CONFIG, lr=(0.3, 0.2)), width=5)


def test_diverging_setting_is_reported_and_the_others_are_used():
    config = dataclasses.replace(CONFIG, lr=(1e38, 0.1), weight_decay=(1.0,))
    found = train(config)
    assert found.diverged.tolist() == [True, False]
    predictions = fitting.run(config, X, LABELS, {"test": TEST}, CLASSES, KEY)
    assert predictions.chosen == {"lr": 0.1, "weight_decay": 1.0}
    assert predictions.validation[0]["accuracy"] is None
