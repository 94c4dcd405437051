"""The record of one probe in results.json: accuracy, confidence interval and confusion matrix.

`schema.json` in this folder has the meaning and unit of every field of the file.
"""

import base64
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from jepa_jax.data.listing import names
from jepa_jax.evaluation.eval_config import Setting
from jepa_jax.evaluation.results import intervals


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Result of one probe on one kind of features for one task. Shares are in 0…1.

    Attributes:
        features: the features that were probed: "trained", "untrained" or a control.
        task: label of the data.
        probe: name of the probe in the config.
        accuracy: top-1 accuracy on the test items, mean over probe seeds.
        accuracies: of each probe seed.
        standard_deviation: of `accuracies` (n − 1); None for a single seed.
        interval: 95 % confidence interval of `accuracy` over test items and probe seeds (`intervals.interval`).
        chance: 1 / number of classes.
        majority: accuracy of always predicting the most frequent training class.
        class_names: in the order of `per_class` and `confusion`.
        per_class: accuracy on the items of each class, mean over probe seeds; None for a class without items.
        confusion: counts of (true class, predicted class), summed over probe seeds.
        train, test: numbers of items; `train` includes validation items.
        chosen: the settings of the probe that was scored.
        validation: each setting tried with its mean accuracy on validation items, None if training diverged; empty if
            there was a single setting.
        converged: whether a logistic probe reached its optimum; None for other probes.
        correct: for each probe seed one bit per test item, the highest bit of a byte first, in base64.
        items: fingerprint of the test items and their classes; results with equal fingerprints can be paired.
        seconds: time of training and scoring.
    """

    features: str
    task: str
    probe: str
    accuracy: float
    accuracies: tuple[float, ...]
    standard_deviation: float | None
    interval: tuple[float, float]
    chance: float
    majority: float
    class_names: tuple[str, ...]
    per_class: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    train: int
    test: int
    chosen: Setting
    validation: tuple[Mapping[str, float | int | None], ...]
    correct: tuple[str, ...]
    items: str
    seconds: float
    converged: bool | None = None


def score(
    *,
    features: str,
    task: str,
    probe: str,
    predicted_SxI: Int[np.ndarray, "seeds items"],
    train_labels: Int[np.ndarray, "train"],
    test_labels: Int[np.ndarray, "items"],
    class_names: Sequence[str],
    item_names: Iterable[str],
    chosen: Setting,
    validation: Sequence[Mapping[str, float | int | None]] = (),
    seconds: float = 0.0,
    converged: bool | None = None,
) -> ProbeResult:
    """Returns the record of a probe's predictions.

    Args:
        features: the features that were probed.
        task: label of the data.
        probe: name of the probe.
        predicted_SxI: predicted classes of each probe seed, as indices into `class_names`.
        train_labels: classes of the training items, as indices into `class_names`.
        test_labels: classes of the test items, as indices into `class_names`.
        class_names: of all classes.
        item_names: of the test items, in order; evaluations with the same names can be compared item by item.
        chosen: settings of the probe.
        validation: see `ProbeResult`.
        seconds: time of training and scoring.
        converged: see `ProbeResult`.
    """
    correct_SxI = predicted_SxI == test_labels
    accuracies = correct_SxI.mean(axis=1)
    confusion = confusion_matrix(predicted_SxI, test_labels, len(class_names))
    return ProbeResult(
        features=features,
        task=task,
        probe=probe,
        accuracy=float(accuracies.mean()),
        accuracies=tuple(accuracies.tolist()),
        standard_deviation=float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        interval=intervals.interval(correct_SxI),
        chance=1 / len(class_names),
        majority=float(np.mean(test_labels == np.bincount(train_labels).argmax())),
        class_names=tuple(class_names),
        per_class=_per_class(confusion),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        train=len(train_labels),
        test=len(test_labels),
        chosen=dict(chosen),
        validation=tuple(dict(setting) for setting in validation),
        correct=pack(correct_SxI),
        items=fingerprint(item_names, (class_names[int(label)] for label in test_labels)),
        seconds=round(seconds, 2),
        converged=converged,
    )


def pool(folds: Sequence[ProbeResult]) -> ProbeResult:
    """Returns one record for all folds of a probe: its items are those of the folds, in order.

    `train` is the mean number of training items. `chosen` is empty if the folds chose different settings. Each setting
    in `validation` has the number of its `fold`.
    """
    first = folds[0]
    items_K = np.array([fold.test for fold in folds])
    correct_SxI = np.concatenate([unpack(fold.correct, fold.test) for fold in folds], axis=1)
    accuracies = correct_SxI.mean(axis=1)
    confusion = np.sum([fold.confusion for fold in folds], axis=0)
    return dataclasses.replace(
        first,
        accuracy=float(accuracies.mean()),
        accuracies=tuple(accuracies.tolist()),
        standard_deviation=float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        interval=intervals.interval(correct_SxI),
        majority=float(np.average([fold.majority for fold in folds], weights=items_K)),
        per_class=_per_class(confusion),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        train=round(float(np.mean([fold.train for fold in folds]))),
        test=int(items_K.sum()),
        chosen=first.chosen if all(fold.chosen == first.chosen for fold in folds) else {},
        validation=tuple({"fold": k, **setting} for k, fold in enumerate(folds) for setting in fold.validation),
        correct=pack(correct_SxI),
        items=hashlib.sha256("\n".join(fold.items for fold in folds).encode()).hexdigest()[:16],
        seconds=round(sum(fold.seconds for fold in folds), 2),
        converged=None if first.converged is None else all(fold.converged for fold in folds),
    )


def _per_class(confusion: Int[np.ndarray, "classes classes"]) -> tuple[float | None, ...]:
    totals = confusion.sum(axis=1)
    return tuple(
        float(right / total) if total else None for right, total in zip(confusion.diagonal(), totals, strict=True)
    )


def confusion_matrix(
    predicted_SxI: Int[np.ndarray, "seeds items"], labels: Int[np.ndarray, "items"], classes: int
) -> Int[np.ndarray, "{classes} {classes}"]:
    """Counts of (true class, predicted class), summed over probe seeds."""
    pairs = labels.astype(np.int64) * classes + predicted_SxI
    return np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)


def pack(correct_SxI: Bool[np.ndarray, "seeds items"]) -> tuple[str, ...]:
    """Encodes each probe seed's bits as a base64 string."""
    return tuple(base64.b64encode(np.packbits(row).tobytes()).decode("ascii") for row in correct_SxI)


def unpack(correct: Sequence[str], items: int) -> Bool[np.ndarray, "seeds {items}"]:
    """Decodes the strings of `pack`."""
    bits = [np.frombuffer(base64.b64decode(text), np.uint8) for text in correct]
    return np.stack([np.unpackbits(row, count=items) for row in bits]).astype(bool)


def fingerprint(item_names: Iterable[str], class_names: Iterable[str]) -> str:
    """A short hash of the test items and their true classes, in order."""
    text = "\n".join(f"{item}\t{name}" for item, name in zip(item_names, class_names, strict=True))
    return hashlib.sha256(names.to_bytes(text)).hexdigest()[:16]
