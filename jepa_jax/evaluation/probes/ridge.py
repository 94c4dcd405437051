"""Ridge regression probe: penalized least squares, in closed form; a classifier regresses class indicators.

With centred features X and centred targets Y of n items, the weights are (XᵀX/n + λ·v·I)⁻¹ XᵀY/n, where v is the
mean variance of a channel, so that a penalty λ does not depend on the scale of the features. One eigendecomposition
serves all penalties.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from jepa_jax.evaluation.features.rows import Rows, Standardizer, read_ahead

BATCH = 4096

Predict = Callable[[Num[np.ndarray, "B E"]], Float[np.ndarray, "1 penalties B targets"]]
Targets = Callable[[Int[np.ndarray, "B"]], Float[np.ndarray, "B targets"]]


def fit(
    source: Rows,
    fit_R: Int[np.ndarray, "R"],
    targets: Targets,
    penalties: Sequence[float],
    standardizer: Standardizer,
) -> Predict:
    """Returns a function from features to predicted targets, for every penalty.

    Args:
        source: features [n, E] of a set.
        fit_R: the rows to fit, ascending.
        targets: returns the targets of rows.
        penalties: λ, above 0.
        standardizer: of the features.
    """
    width, count, outputs = source.shape[-1], len(fit_R), targets(fit_R[:1]).shape[-1]
    products_ExE, targets_ExC = np.zeros((width, width)), np.zeros((width, outputs))
    sum_E, sum_C = np.zeros(width), np.zeros(outputs)
    batches = [fit_R[first : first + BATCH] for first in range(0, count, BATCH)]
    for index_B, features in zip(batches, read_ahead(source, batches), strict=True):
        x_BxE = np.asarray(standardizer(features), np.float64)
        y_BxC = targets(index_B)
        products_ExE += x_BxE.T @ x_BxE
        targets_ExC += x_BxE.T @ y_BxC
        sum_E += x_BxE.sum(axis=0)
        sum_C += y_BxC.sum(axis=0)
    mean_E, mean_C = sum_E / count, sum_C / count
    covariance_ExE = products_ExE / count - np.outer(mean_E, mean_E)
    values_E, vectors_ExE = np.linalg.eigh(covariance_ExE)
    values_E = np.maximum(values_E, 0)
    projected_ExC = vectors_ExE.T @ (targets_ExC / count - np.outer(mean_E, mean_C))
    unit = max(float(values_E.mean()), np.finfo(np.float64).tiny)
    weights_PxExC = np.stack(
        [vectors_ExE @ (projected_ExC / (values_E + penalty * unit)[:, None]) for penalty in penalties]
    )

    def predict(features: Num[np.ndarray, "B E"]) -> Float[np.ndarray, "1 penalties B targets"]:
        return ((np.asarray(standardizer(features)) - mean_E) @ weights_PxExC + mean_C)[None]

    return predict


def class_indicators(labels: Int[np.ndarray, "n"], classes: int) -> Targets:
    """The targets of a classifier: 1 for the row's class, 0 for the others. The class with the top score wins."""
    return lambda index_B: np.eye(classes)[labels[index_B]]
