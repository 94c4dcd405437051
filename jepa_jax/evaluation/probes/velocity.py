"""Velocity probe: ridge regression of the velocity at a random frame of a clip, from the features of its time step.

The frame of each clip is uniformly random between the first and the last; the features are the mean tokens of the time
step that contains it. A clip played backwards shows the same frame with the opposite velocity, which the frame cannot
tell. The probe's predictions for the two tell them apart if their difference points along the velocity.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from jepa_jax.evaluation.features.feature_set import Features
from jepa_jax.evaluation.features.rows import Rows, Standardizer, channel_statistics
from jepa_jax.evaluation.probes import ridge
from jepa_jax.evaluation.results import velocity_result
from jepa_jax.evaluation.results.velocity_result import VelocityResult

KIND = "frames"  # the features that are probed
PENALTIES = tuple(10.0**power for power in range(1, -8, -1))
FOLDS = 5
_TRAIN, _TEST, _FOLD = range(3)  # of random numbers


def run(
    train: Mapping[str, Features],
    test: Mapping[str, Features],
    backwards: Mapping[str, Features],
    train_IxFxXY: Float[np.ndarray, "I F XY"],
    test_IxFxXY: Float[np.ndarray, "J F XY"],
    seed: int,
) -> list[VelocityResult]:
    """Regresses velocities from the features of each encoder or control.

    Args:
        train: features of the training clips, of KIND, by encoder or control.
        test: features of the test clips.
        backwards: features of the test clips played backwards, of some of the encoders.
        train_IxFxXY: velocities of all items of the training set, in each frame.
        test_IxFxXY: velocities of all items of the test set.
        seed: of the random frames and of cross-validation.
    """
    return [
        _run_one(name, train[name], test[name], backwards.get(name), train_IxFxXY, test_IxFxXY, seed)
        for name in train
        if KIND in train[name].tokens
    ]


def _run_one(
    name: str,
    train: Features,
    test: Features,
    backwards: Features | None,
    train_IxFxXY: Float[np.ndarray, "I F XY"],
    test_IxFxXY: Float[np.ndarray, "J F XY"],
    seed: int,
) -> VelocityResult:
    started = time.monotonic()
    frames = train_IxFxXY.shape[1]
    train_time, test_time = (
        random_times(frames, features.items, [seed, of]) for features, of in ((train, _TRAIN), (test, _TEST))
    )
    x_NxE, y_NxXY = at_times(train.tokens[KIND], train_time, frames), train_IxFxXY[train.items, train_time]
    true_MxXY = test_IxFxXY[test.items, test_time]
    standardizer = Standardizer(*channel_statistics(x_NxE))

    def fit(rows_R: Int[np.ndarray, "R"], penalties: Sequence[float]) -> ridge.Predict:
        return ridge.fit(x_NxE, rows_R, lambda index_B: y_NxXY[index_B], penalties, standardizer)

    squares_P = np.zeros(len(PENALTIES))
    fold_N = np.random.default_rng([seed, _FOLD]).permutation(len(x_NxE)) % FOLDS
    for fold in range(FOLDS):
        held = fold_N == fold
        predicted_PxRxXY = fit(np.flatnonzero(~held), PENALTIES)(x_NxE[held])[0]
        squares_P += np.square(predicted_PxRxXY - y_NxXY[held]).sum((1, 2))
    penalty = PENALTIES[int(squares_P.argmin())]
    predict = fit(np.arange(len(x_NxE)), [penalty])
    forward_MxXY = predict(at_times(test.tokens[KIND], test_time, frames))[0, 0]
    backward_MxXY = None
    if backwards is not None:
        if not np.array_equal(backwards.items, test.items):
            raise ValueError(f"{name}: the clips played backwards are not the test clips.")
        # The frame at time t is the frame of the reversed clip at time frames − 1 − t.
        backward_MxXY = predict(at_times(backwards.tokens[KIND], frames - 1 - test_time, frames))[0, 0]
    return velocity_result.score(
        features=name,
        predicted_IxXY=forward_MxXY,
        backward_IxXY=backward_MxXY,
        true_IxXY=true_MxXY,
        train=len(x_NxE),
        penalty=penalty,
        seconds=time.monotonic() - started,
    )


def random_times(frames: int, items_N: Int[np.ndarray, "N"], seed: Sequence[int]) -> Int[np.ndarray, "N"]:
    """A uniformly random frame of each item, neither the first nor the last; item and seed determine it."""
    every_I = np.random.default_rng(seed).integers(1, frames - 1, size=int(items_N.max()) + 1)
    return every_I[items_N]


def at_times(tokens: Rows, time_N: Int[np.ndarray, "N"], frames: int) -> Float[np.ndarray, "N E"]:
    """The features of the time step that contains a frame of each clip.

    Args:
        tokens: [N, T, E].
        time_N: of the frame, in 0…frames − 1.
        frames: of a clip.
    """
    step_N = time_N * tokens.shape[1] // frames
    return tokens[np.arange(len(tokens))][np.arange(len(tokens)), step_N].astype(np.float32)
