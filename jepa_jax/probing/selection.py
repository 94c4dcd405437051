"""Choosing among settings of a probe by a held-out part of the training clips, never by the test set."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from jepa_jax.probing.labels import LabelError


class Split(NamedTuple):
    """Numbers of the training rows, ascending: those to train on, and those held out."""

    fit: Int[np.ndarray, "fit"]
    held: Int[np.ndarray, "held"]


def hold_out(labels: Int[np.ndarray, "rows"], share: float, key: PRNGKeyArray) -> Split:
    """About `share` of each class held out at random; every class keeps a row to train on.

    The same labels, share and key give the same split, whatever the features.

    Raises:
        LabelError: too few rows to hold any out.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    order = np.lexsort((rng.random(len(labels)), labels))
    first_of_class = np.r_[True, np.diff(labels[order]) != 0]
    candidates = order[~first_of_class]
    count = min(round(share * len(labels)), len(candidates))
    if not count:
        raise LabelError(
            f"of {len(labels)} training clips in {first_of_class.sum()} classes, a share of {share} cannot be held out "
            "to choose among settings: give the probe a single lr, weight_decay, penalty or number of neighbours, more "
            "clips, or a larger share (validation)."
        )
    # Evenly spaced among rows sorted by class: as many of each class as its size says.
    held = candidates[((np.arange(count) + 0.5) * len(candidates) / count).astype(int)]
    return Split(np.setdiff1d(np.arange(len(labels)), held), np.sort(held))
