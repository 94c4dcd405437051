"""k-nearest-neighbour probe: the training clips with the highest cosine similarity vote."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jepa_jax.evaluation.features.rows import Rows, Standardizer

TEMPERATURE = 0.07

Scores = Callable[[Num[np.ndarray, "B E"]], Float[Array, "1 neighbours B classes"]]


def fit(
    source: Rows,
    fit_R: Int[np.ndarray, "R"],
    labels: Int[np.ndarray, "n"],
    classes: int,
    neighbours: Sequence[int],
    standardizer: Standardizer,
) -> Scores:
    """Returns a function from features to each class's share of the votes, for every number of neighbours.

    A neighbour with cosine s has the weight exp(s / 0.07) (arXiv:1805.01978). If there are fewer rows than neighbours,
    all rows vote.

    Args:
        source: features [n, E] of a set.
        fit_R: the rows that vote, ascending.
        labels: of all rows, in 0…classes − 1.
        classes: number of classes.
        neighbours: numbers of neighbours.
        standardizer: of the features.
    """
    bank_RxE = _unit(jnp.asarray(source[fit_R]), standardizer)
    label_R = jnp.asarray(labels[fit_R])
    counts = tuple(min(count, len(fit_R)) for count in neighbours)
    return lambda features: _votes(counts, classes, features, bank_RxE, label_R, standardizer)


@jax.jit
def _unit(features: Num[Array, "B E"], standardizer: Standardizer) -> Float[Array, "B E"]:
    scaled_BxE = jnp.asarray(standardizer(features))
    return scaled_BxE / jnp.maximum(jnp.linalg.norm(scaled_BxE, axis=-1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _votes(
    counts: tuple[int, ...],
    classes: int,
    features: Num[Array, "B E"],
    bank_RxE: Float[Array, "R E"],
    label_R: Int[Array, "R"],
    standardizer: Standardizer,
) -> Float[Array, "1 neighbours B classes"]:
    most = max(counts)
    cosine_BxK, nearest_BxK = jax.lax.top_k(_unit(features, standardizer) @ bank_RxE.T, most)
    # Relative to the nearest neighbour, to avoid overflow.
    weight_BxK = jnp.exp((cosine_BxK - cosine_BxK[:, :1]) / TEMPERATURE)
    votes_BxKxC = jax.nn.one_hot(label_R[nearest_BxK], classes) * weight_BxK[..., None]
    votes_PxBxC = jnp.stack([votes_BxKxC[:, :count].sum(axis=1) for count in counts])
    return (votes_PxBxC / votes_PxBxC.sum(axis=-1, keepdims=True))[None]
