"""Global statistics of sprites, which need no encoder, do not predict the labels."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from jepa_jax.data import sprites

pytestmark = pytest.mark.slow

FRAMES, SIZE = 8, 32
TRAIN, TEST = 3_000, 2_000


def clips(difficulty, split, count):
    spec = sprites.SpriteSpec(FRAMES, SIZE, difficulty)
    video, labels = sprites.render(spec, 0, split, np.arange(count, dtype=np.int32))
    return np.asarray(video), {task: np.asarray(values) for task, values in labels.items()}


def histograms(frame_BxYxXxC):
    """Counts of 32 levels of each colour."""
    level = frame_BxYxXxC // 8
    return np.stack([(level == value).sum((1, 2)) for value in range(32)], -1).reshape(len(level), -1)


def radial_spectrum(frame_BxYxXxC):
    """Share of the grey frame's power at each whole distance from frequency 0, to six digits."""
    power = np.abs(np.fft.fft2(frame_BxYxXxC.mean(-1))) ** 2
    frequency = np.fft.fftfreq(SIZE) * SIZE
    radius = np.rint(np.hypot(frequency[:, None], frequency)).astype(int)
    by_radius = np.stack([power[:, radius == value].sum(1) for value in range(SIZE // 2 + 1)], -1)
    return np.round(by_radius / np.maximum(power.sum((1, 2)), 1)[:, None], 6)


def statistics(video):
    """Features of each clip, by name."""
    some = video[np.arange(len(video)), np.random.default_rng(0).integers(FRAMES, size=len(video))]
    change = np.diff(video.astype(np.float32), axis=1)
    energy, absolute = np.square(change).mean((2, 3, 4)), np.abs(change).mean((2, 3, 4))
    # Squares of 4 pixels: half a cell of easy clips, which trees learn from in seconds.
    grey = video.reshape(*video.shape[:2], SIZE // 4, 4, SIZE // 4, 4, 3).mean((3, 5, 6), dtype=np.float32)
    over_time = np.stack([grey.mean(1), grey.std(1), grey.min(1), grey.max(1)], 1)
    return {
        "mean colour of a frame": some.mean((1, 2)),
        "histogram of a frame": histograms(some),
        "spectrum of a frame": radial_spectrum(some),
        "mean colours in time": video.mean((2, 3)).reshape(len(video), -1),
        "energy in time": energy,
        "sorted energy": np.sort(energy, axis=1),
        "absolute change in time": absolute,
        "sorted absolute change": np.sort(absolute, axis=1),
        "pixels over time": over_time.reshape(len(video), -1),
    }


@pytest.fixture(scope="module", params=["easy", "standard"])
def data(request):
    """Statistics and labels of training and test clips."""
    (train, labels), (test, test_labels) = (clips(request.param, *part) for part in (("train", TRAIN), ("test", TEST)))
    return statistics(train), labels, statistics(test), test_labels


def classifier(kind, wide):
    if kind == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01 if wide else 1.0, max_iter=300, tol=1e-3))
    return HistGradientBoostingClassifier(
        max_iter=30, max_features=0.1 if wide else 1.0, early_stopping=False, random_state=0
    )


@pytest.mark.parametrize("kind", ["logistic", "trees"])
@pytest.mark.parametrize("name", statistics(np.zeros((1, FRAMES, SIZE, SIZE, 3), np.uint8)))
def test_statistics_do_not_predict_labels(data, name, kind):
    train, labels, test, test_labels = data
    above = {}
    for task, names in sprites.CLASSES.items():
        if task == "appearance" and name == "pixels over time":
            continue  # a texture may be read from pixels
        with threadpool_limits(1):  # threads that wait for each other take minutes on a busy machine
            model = classifier(kind, wide=name == "pixels over time").fit(train[name], labels[task])
        above[task] = 100 * (np.mean(model.predict(test[name]) == test_labels[task]) - 1 / len(names))
    print(name, kind, {task: round(points, 1) for task, points in above.items()})
    assert above["order"] <= 5
    assert above.get("appearance", 0) <= 5
    # Where pixels change shows the line of motion: two of four directions, 25 % of the motions and a little more.
    assert above["motion"] <= (20 if name == "pixels over time" else 15)
