"""The classes that probes tell apart."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


class LabelError(ValueError):
    """Labels that no probe can be trained or scored on: says which task and which classes."""


def seen_classes(
    task: str, train: Int[np.ndarray, "train"], test: Int[np.ndarray, "test"], names: Sequence[str]
) -> tuple[Int[np.ndarray, "train"], Int[np.ndarray, "test"], tuple[str, ...]]:
    """Both sets' labels as indices into the classes that occur in training, and the names of these.

    Args:
        task: what the labels say, for errors.
        train: labels, as indices into `names`.
        test: likewise.
        names: of all classes; some may not occur, as where a CSV file numbers its classes with gaps.

    Raises:
        LabelError: labels outside the names, a single class, or a test class never seen in training.
    """
    for name, labels in (("training", train), ("test", test)):
        wrong = (labels < 0) | (labels >= len(names))
        if wrong.any():
            values = ", ".join(map(str, np.unique(labels[wrong])[:5]))
            raise LabelError(
                f"{task}: {wrong.sum()} of {len(labels)} {name} clips have a label ({values}) that is no class; "
                f"classes are numbered 0 to {len(names) - 1}."
            )
    seen = np.unique(train)
    classes = tuple(names[int(label)] for label in seen)
    if len(classes) < 2:
        raise LabelError(f"{task}: all training clips are of class {_list(classes)}; there is nothing to tell apart.")
    unseen = np.setdiff1d(test, seen)
    if len(unseen):
        strange = _list([names[int(label)] for label in unseen])
        raise LabelError(
            f"{task}: no training clip is of class {strange}, which the test set has; training has {_list(classes)}."
        )
    return np.searchsorted(seen, train).astype(np.int32), np.searchsorted(seen, test).astype(np.int32), classes


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
