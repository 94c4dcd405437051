import dataclasses
import functools
import tempfile

import jax
import numpy as np
import pytest

from jepa_jax import models
from jepa_jax.data import sprites
from jepa_jax.evaluation import eval_config as probing_config
from jepa_jax.evaluation.probes import fitting
from jepa_jax.models import pixels
from jepa_jax.parity import comparison, model_cases

ProbeConfig = functools.partial(probing_config.ProbeConfig, seeds=1)
KEY = jax.random.key(0)
CLASSES = 4


def predict(config, train, labels, test, key=KEY):
    """The predictions of a probe with one seed for one test set."""
    (predicted,) = fitting.run(config, train, labels, {"test": test}, CLASSES, key).predicted["test"]
    return predicted


def blobs(seed, count, *, tokens=0, width=8, spread=0.3):
    """Clips whose class is a direction of their features, or of one token at a random position."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    centres = np.eye(CLASSES, width)[labels] * 2
    if not tokens:
        return (centres + spread * rng.normal(size=(count, width))).astype(np.float32), labels
    features = spread * rng.normal(size=(count, tokens, width))
    features[np.arange(count), rng.integers(tokens, size=count)] += 2 * centres
    return features.astype(np.float32), labels


def on_disk(array):
    with tempfile.TemporaryFile() as file:
        copy = np.memmap(file, dtype=array.dtype, mode="w+", shape=array.shape)
    copy[:] = array
    return copy


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        ProbeConfig(kind="linear", epochs=20, batch_size=16, lr=(0.02,)),
        ProbeConfig(kind="linear", epochs=20, batch_size=16, lr=(0.02,), standardise=True),
        ProbeConfig(kind="attentive", epochs=20, batch_size=16, heads=2, lr=(5e-3,)),
        ProbeConfig(kind="attentive_blocks", epochs=20, batch_size=16, heads=2, blocks=2, lr=(5e-3,)),
        ProbeConfig(kind="linear", epochs=20, batch_size=16, lr=(1e-5, 0.02), weight_decay=(0.0, 0.1)),
        ProbeConfig(kind="logistic"),
        ProbeConfig(kind="logistic", penalty=(0.01,), standardise=True),
        ProbeConfig(kind="ridge"),
        ProbeConfig(kind="ridge", penalty=(0.1,), standardise=True),
        ProbeConfig(kind="knn", neighbours=(5,)),
        ProbeConfig(kind="knn", neighbours=(1, 5, 200)),
    ],
    ids=lambda config: f"{config.kind}{'-standardised' * config.standardise}{'-grid' * (len(config.settings()) > 1)}",
)
def test_probe_learns_labels_but_not_shuffled_ones(config):
    train, train_labels = blobs(0, 120)
    test, test_labels = blobs(1, 200)
    predicted = predict(config, train, train_labels, test)
    assert np.mean(predicted == test_labels) > 0.95
    # These labels are independent of the features. Chance is 25 %, with a standard error of 3 %.
    shuffled = np.random.default_rng(2).permutation(train_labels)
    predicted = predict(config, train, shuffled, test)
    assert np.mean(predicted == test_labels) < 0.5


def test_attentive_probe_finds_the_informative_token():
    config = ProbeConfig(kind="attentive", tokens="all", epochs=40, batch_size=16, heads=1, lr=(1e-2,))
    train, train_labels = blobs(0, 128, tokens=6)
    test, test_labels = blobs(1, 100, tokens=6)
    predicted = predict(config, train, train_labels, test)
    assert np.mean(predicted == test_labels) > 0.9


@pytest.mark.parametrize("standardise", [False, True])
def test_features_on_disk_and_in_memory_give_the_same_probe(standardise):
    config = ProbeConfig(
        kind="attentive", tokens="all", epochs=3, batch_size=8, heads=2, standardise=standardise, lr=(3e-3,)
    )
    train, labels = blobs(0, 43, tokens=5)  # the last batch is partial
    test, _ = blobs(1, 37, tokens=5, spread=1)
    memory = predict(config, train, labels, test)
    disk = predict(config, on_disk(train), labels, on_disk(test))
    np.testing.assert_array_equal(memory, disk)
    assert len(set(memory)) > 1


def test_padding_of_a_partial_batch_has_no_effect():
    """An epoch over 5 clips is one step with batches of 5 and with batches of 64."""
    train, labels = blobs(0, 5)
    test, _ = blobs(1, 50, spread=1.5)
    config = ProbeConfig(kind="linear", epochs=4, lr=(0.05,), batch_size=5)
    wide = dataclasses.replace(config, batch_size=64)
    one = predict(config, train, labels, test)
    np.testing.assert_array_equal(one, predict(wide, train, labels, test))


def test_standardised_probe_ignores_scale_and_offset():
    train, labels = blobs(0, 64)
    test, _ = blobs(1, 64, spread=1)
    config = ProbeConfig(kind="linear", epochs=5, lr=(0.01,), batch_size=16, standardise=True)
    scale, offset = np.float32(2.0 ** np.arange(-4, 4)), np.arange(8, dtype=np.float32)
    plain = predict(config, train, labels, test)
    moved = predict(config, train * scale + offset, labels, test * scale + offset)
    assert np.mean(plain == moved) > 0.98


def test_probe_is_determined_by_the_key():
    train, labels = blobs(0, 40, spread=2)
    test, _ = blobs(1, 100, spread=2)
    config = ProbeConfig(kind="linear", epochs=2, batch_size=16)
    first = predict(config, train, labels, test)
    np.testing.assert_array_equal(first, predict(config, train, labels, test))
    assert (first != predict(config, train, labels, test, jax.random.key(1))).any()


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_knn_is_a_weighted_vote_of_the_nearest_clips(neighbours):
    rng = np.random.default_rng(3)
    train, test = (rng.normal(size=(n, 5)).astype(np.float32) for n in (30, 20))
    labels = rng.integers(CLASSES, size=30).astype(np.int32)
    predicted = predict(ProbeConfig(kind="knn", neighbours=(neighbours,)), train, labels, test)

    for clip, answer in zip(test, predicted, strict=True):
        cosines = [float(clip @ other / np.linalg.norm(clip) / np.linalg.norm(other)) for other in train]
        votes = dict.fromkeys(range(CLASSES), 0.0)
        for index in sorted(range(30), key=lambda i: -cosines[i])[:neighbours]:
            votes[labels[index]] += np.exp(cosines[index] / 0.07)
        assert answer == max(votes, key=votes.__getitem__)


def test_diverging_probe_raises():
    train, labels = blobs(0, 40)
    with pytest.raises(FloatingPointError, match="after epoch 1; lower its lr"):
        predict(ProbeConfig(kind="linear", epochs=3), train * np.float32(1e38), labels, train)


def test_settings_are_chosen_on_held_out_training_clips_only():
    train, labels = blobs(0, 160)
    test, _ = blobs(1, 40)
    config = ProbeConfig(epochs=8, batch_size=16, lr=(1e-6, 0.05), seeds=2)
    first = fitting.run(config, train, labels, {"test": test}, CLASSES, KEY)
    assert first.chosen == {"lr": 0.05, "weight_decay": 0.01}
    assert [tried["lr"] for tried in first.validation] == [1e-6, 0.05]
    assert first.validation[0]["accuracy"] < 0.6 < first.validation[1]["accuracy"]
    assert first.predicted["test"].shape == (2, 40)
    other = fitting.run(config, train, labels, {"test": -test}, CLASSES, KEY)
    assert (other.chosen, other.validation) == (first.chosen, first.validation)


def test_chosen_setting_is_fitted_again_to_all_training_clips():
    """With one neighbour, every clip finds itself, including the clips that were held out for the choice."""
    train, labels = blobs(0, 5, spread=0.01)
    config = ProbeConfig(kind="knn", neighbours=(1, 2), validation=0.2)
    found = fitting.run(config, train, labels, {"test": train}, CLASSES, KEY)
    np.testing.assert_array_equal(found.predicted["test"], [labels])


@pytest.mark.parametrize("kind", ["linear", "logistic", "ridge", "knn"])
def test_clips_of_a_group_are_held_out_together(kind):
    """Twelve recordings of one class each. Their clips are similar, and independent of other recordings."""
    rng = np.random.default_rng(0)
    recording = np.repeat(np.arange(12), 8)
    train = np.float32(3 * rng.normal(size=(12, 40))[recording] + 0.1 * rng.normal(size=(96, 40)))
    labels = np.int32(recording % CLASSES)
    config = ProbeConfig(kind=kind, epochs=20, batch_size=32, lr=(0.05, 0.03), neighbours=(1, 2), validation=0.25)
    apart, together = (
        [tried["accuracy"] for tried in fitting.run(config, train, labels, {}, CLASSES, KEY, groups=groups).validation]
        for groups in (None, recording)
    )
    assert max(apart) > 0.9, "without groups, a similar clip of the same recording is in the training set"
    assert max(together) < 0.6, "chance is 25 %"


@pytest.mark.parametrize("kind", ["linear", "ridge", "knn"])
def test_views_of_an_item_are_averaged(kind):
    """Items have one or three rows. Two clear rows outvote one of another class."""
    train, labels = blobs(0, 80)
    clear, truth = blobs(1, 8, spread=0.1)
    views = np.stack([clear, np.roll(clear, 1, axis=0) * 0.4, clear], axis=1).reshape(24, -1)
    items = np.repeat(np.arange(8), 3)
    keep = np.r_[0:3, 3, 6:24]  # of item 1 only the first view could be decoded
    config = ProbeConfig(kind=kind, epochs=20, batch_size=16, lr=(0.05,), penalty=(0.1,))
    found = fitting.run(config, train, labels, {"test": views[keep]}, CLASSES, KEY, items={"test": items[keep]})
    np.testing.assert_array_equal(found.predicted["test"], [truth])


def test_one_probe_predicts_several_test_sets():
    train, labels = blobs(0, 64)
    first, second = blobs(1, 20)[0], blobs(2, 30)[0]
    config = ProbeConfig(epochs=2, batch_size=16)
    found = fitting.run(config, train, labels, {"a": first, "b": second}, CLASSES, KEY).predicted
    np.testing.assert_array_equal(found["a"], [predict(config, train, labels, first)])
    np.testing.assert_array_equal(found["b"], [predict(config, train, labels, second)])


@pytest.mark.slow
def test_linear_probe_matches_scikit_learn_on_features_of_the_golden_encoder(golden_folder, golden_meta):
    """Without regularization, both have the same unique optimum."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    folder = comparison.Folder(golden_folder)
    encoder = models.build_encoder(model_cases.encoder_config(folder))
    params = model_cases.params(folder)["encoder"]
    spec = sprites.SpriteSpec(golden_meta["frames"], golden_meta["crop"], "easy")

    @jax.jit
    def encode(video):
        return encoder.apply({"params": params}, pixels.normalise(video)).mean(axis=1)

    features, labels = [], []
    for first in range(0, 800, 100):
        video, label = sprites.render(spec, 0, "train", np.arange(first, first + 100, dtype=np.int32))
        features.append(np.asarray(encode(video)))
        labels.append(np.asarray(label["order"]))
    x, y = np.concatenate(features), np.concatenate(labels)
    train, test = slice(0, 500), slice(500, 800)

    # Whitened features let gradient descent reach the optimum quickly.
    centred = x - x[train].mean(0)
    _, deviation, axes = np.linalg.svd(centred[train], full_matrices=False)
    x = np.float32(centred @ axes[:-1].T / deviation[:-1] * np.sqrt(500))  # LayerNorm removes the variance of one axis
    theirs = linear_model.LogisticRegression(C=np.inf, max_iter=5000, tol=1e-6).fit(x[train], y[train])
    config = ProbeConfig(epochs=200, batch_size=500, lr=(0.1,), weight_decay=(0.0,), schedule="cosine")
    (ours,) = fitting.run(config, x[train], y[train], {"test": x[test]}, 6, KEY).predicted["test"]
    assert abs(np.mean(ours == y[test]) - theirs.score(x[test], y[test])) <= 0.01
    assert np.mean(ours == theirs.predict(x[test])) > 0.98
    assert theirs.score(x[test], y[test]) > 0.2, "accuracy must be above chance, 1/6"
