"""A probe without training: the vote of the nearest training clips by cosine."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jepa_jax.probing.features import Rows
from jepa_jax.probing.grid import Scale

TEMPERATURE = 0.07

Scores = Callable[[Num[np.ndarray, "B E"]], Float[Array, "1 neighbours B classes"]]


def fit(
    source: Rows,
    fit_R: Int[np.ndarray, "R"],
    labels: Int[np.ndarray, "n"],
    classes: int,
    neighbours: Sequence[int],
    scale: Scale,
) -> Scores:
    """A function from features to the votes for each class (their share), for every number of neighbours.

    A neighbour of cosine s votes with weight exp(s / 0.07) (arXiv:1805.01978); all vote if there are fewer.

    Args:
        source: features [n, E] of a set.
        fit_R: which of its rows vote, ascending.
        labels: of all rows, in 0…classes − 1.
        classes: how many there are.
        neighbours: how many vote.
        scale: of the features.
    """
    bank_RxE = _unit(jnp.asarray(source[fit_R]), scale)
    label_R = jnp.asarray(labels[fit_R])
    counts = tuple(min(count, len(fit_R)) for count in neighbours)
    return lambda features: _votes(counts, classes, features, bank_RxE, label_R, scale)


@jax.jit
def _unit(features: Num[Array, "B E"], scale: Scale) -> Float[Array, "B E"]:
    scaled_BxE = jnp.asarray(scale(features))
    return scaled_BxE / jnp.maximum(jnp.linalg.norm(scaled_BxE, axis=-1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _votes(
    counts: tuple[int, ...],
    classes: int,
    features: Num[Array, "B E"],
    bank_RxE: Float[Array, "R E"],
    label_R: Int[Array, "R"],
    scale: Scale,
) -> Float[Array, "1 neighbours B classes"]:
    most = max(counts)
    cosine_BxK, nearest_BxK = jax.lax.top_k(_unit(features, scale) @ bank_RxE.T, most)
    # Relative to the nearest, so that nothing overflows.
    weight_BxK = jnp.exp((cosine_BxK - cosine_BxK[:, :1]) / TEMPERATURE)
    votes_BxKxC = jax.nn.one_hot(label_R[nearest_BxK], classes) * weight_BxK[..., None]
    votes_PxBxC = jnp.stack([votes_BxKxC[:, :count].sum(axis=1) for count in counts])
    return (votes_PxBxC / votes_PxBxC.sum(axis=-1, keepdims=True))[None]
