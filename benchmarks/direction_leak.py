"""How well the position of a disc in a single frame predicts its direction.

    python benchmarks/direction_leak.py [--clips 2000]

Discs that stop at the border of 160×160 pixels, and the same on a torus. `best possible`: the most probable direction
given radius and position in this frame, by exact counting of all starts. The others are trained on the true radius and
position in this frame of training clips and scored on as many test clips, with 95 % Clopper–Pearson intervals. Frame
numbers count from 1.
"""

import argparse
import functools

import jax
import numpy as np
import table
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jepa_jax.data import directions

FRAMES = (1, 2, 4, 8, 16, 32)
MODELS = {
    "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "gradient-boosted trees": lambda: HistGradientBoostingClassifier(random_state=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000, help="training clips, and as many test clips")
    clips = parser.parse_args().clips
    rows = []
    for motion in ("clamped", "wrapped"):
        train, test = (positions(motion, split, clips) for split in ("train", "test"))
        for frame in FRAMES:
            best = best_possible(frame - 1) if motion == "clamped" else 1 / 8
            scores = [score(make(), train, test, frame - 1) for make in MODELS.values()]
            rows.append((motion, frame, f"{100 * best:.1f}", *scores))
    table.show(("border", "frame", "best possible", *MODELS), rows, f"{clips:,} training and test clips; percent.")


def best_possible(time: int) -> float:
    """The accuracy of the most probable direction given radius and position after `time` steps in `clamped`."""
    spec = directions.DiscSpec()
    shares = []
    for radius in range(spec.size // 16, spec.size // 4):
        low, high = radius, spec.size - 1 - radius
        start = np.arange(low, high + 1)
        counts = np.zeros((8, spec.size, spec.size))
        for direction, velocity in enumerate(directions.VELOCITIES):
            x, y = (np.bincount(np.clip(start + time * v, low, high), minlength=spec.size) for v in velocity)
            counts[direction] = np.outer(y, x)  # x and y start independently
        shares.append(counts.max(0).sum() / counts.sum())
    return float(np.mean(shares))


def positions(motion: str, split: str, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Radius, x and y of each frame [clips, 32, 3], and the directions."""
    spec = directions.DiscSpec(max(FRAMES), 160, motion)

    @jax.jit
    def states(item):
        discs = jax.vmap(functools.partial(directions.disc, spec, 0, split))(item)
        return discs.radius, discs.x, discs.y, discs.labels["direction"]

    radius, x, y, label = map(np.asarray, states(np.arange(clips)))
    return np.stack([np.broadcast_to(radius[:, None], x.shape), x, y], -1), label


def score(model, train, test, time: int) -> str:
    """Accuracy on test clips with its interval, in percent."""
    right = int((model.fit(train[0][:, time], train[1]).predict(test[0][:, time]) == test[1]).sum())
    low, high = stats.binomtest(right, len(test[1])).proportion_ci(method="exact")
    return f"{100 * right / len(test[1]):.1f} ({100 * low:.1f}–{100 * high:.1f})"


if __name__ == "__main__":
    main()
