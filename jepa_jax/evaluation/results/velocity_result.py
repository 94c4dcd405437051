"""The record of one velocity probe in results.json: R², accuracy of telling opposite velocities apart, intervals."""

import dataclasses

import numpy as np
from jaxtyping import Float

from jepa_jax.evaluation.results import intervals


@dataclasses.dataclass(frozen=True, kw_only=True)
class VelocityResult:
    """Result of a ridge regression of velocity on one kind of features.

    Attributes:
        features: the features that were probed, as in `probe_result.ProbeResult`.
        r_squared: 1 − Σ(error²)/Σ(deviation from the mean²), over both components and all test clips; 1 is perfect, 0
            is as good as predicting the mean. None if all velocities are equal, as in clips of 4 or 5 sprite frames,
            in which nothing moves.
        interval: 95 % confidence interval of `r_squared` over test clips; None with `r_squared`.
        pair_accuracy: share of pairs of a moving frame and the same frame with the opposite velocity that the
            predictions tell apart; a tie counts as half. None without clips played backwards, or if nothing moves.
        pair_interval: 95 % confidence interval of `pair_accuracy` over pairs.
        pairs: number of pairs.
        train, test: numbers of clips.
        penalty: chosen by cross-validation.
        seconds: time of training and scoring.
    """

    features: str
    r_squared: float | None
    interval: tuple[float, float] | None
    pair_accuracy: float | None
    pair_interval: tuple[float, float] | None
    pairs: int
    train: int
    test: int
    penalty: float
    seconds: float


def score(
    *,
    features: str,
    predicted_IxXY: Float[np.ndarray, "I XY"],
    backward_IxXY: Float[np.ndarray, "I XY"] | None,
    true_IxXY: Float[np.ndarray, "I XY"],
    train: int,
    penalty: float,
    seconds: float = 0.0,
) -> VelocityResult:
    """Returns the record of a probe's predictions.

    Args:
        features: the features that were probed.
        predicted_IxXY: predicted velocity of each test clip.
        backward_IxXY: that of the same frames in clips played backwards, whose velocity is −`true_IxXY`; None: unknown.
        true_IxXY: velocity of each test clip.
        train: number of training clips.
        penalty: of the regression.
        seconds: time of training and scoring.
    """
    error_I = np.square(predicted_IxXY - true_IxXY).sum(axis=-1)
    deviation_I = np.square(true_IxXY - true_IxXY.mean(axis=0)).sum(axis=-1)
    r_squared, interval = intervals.r_squared(error_I, deviation_I) if deviation_I.any() else (None, None)
    told, moving = np.zeros(0), true_IxXY.any(axis=-1)
    if backward_IxXY is not None:
        along_I = ((predicted_IxXY - backward_IxXY) * true_IxXY).sum(axis=-1)[moving]
        told = (np.sign(along_I) + 1) / 2
    return VelocityResult(
        features=features,
        r_squared=r_squared,
        interval=interval,
        pair_accuracy=float(told.mean()) if len(told) else None,
        pair_interval=intervals.of_share(float(told.mean()), float(len(told))) if len(told) else None,
        pairs=len(told),
        train=train,
        test=len(true_IxXY),
        penalty=penalty,
        seconds=round(seconds, 2),
    )
