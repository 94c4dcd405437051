"""One probe: fitted to features that are already there, its settings chosen, its answers about test sets."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from jepa_jax.models import probes
from jepa_jax.probing import grid, knn, ridge, rows, selection
from jepa_jax.probing.config import ProbeConfig, Setting
from jepa_jax.probing.features import Rows, channel_statistics

Scores = Callable[[Num[np.ndarray, "B *S E"]], Float[Array | np.ndarray, "seeds settings B classes"]]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a probe says about test sets.

    Attributes:
        predicted: for each test set the classes, a row for each probe seed (a single one where nothing is random).
        chosen: the settings of the probe.
        validation: every setting with its mean `accuracy` on held-out training items, None where it diverged; empty if
            there was one setting only.
    """

    predicted: Mapping[str, Int[np.ndarray, "seeds items"]]
    chosen: Setting
    validation: tuple[Mapping[str, float | int | None], ...] = ()


def run(
    config: ProbeConfig,
    train: Rows,
    train_labels: Int[np.ndarray, "n"],
    tests: Mapping[str, Rows],
    classes: int,
    key: PRNGKeyArray,
    *,
    width: int = 0,
    items: Mapping[str, Int[np.ndarray, "_"]] | None = None,
    name: str = "probe",
) -> Answers:
    """Trains a probe and asks it about test sets.

    With several settings, each is fitted to a part of `train`, and the one that is right most often about the held-out
    rest is kept. A trained probe stays as it is; ridge and nearest neighbours are computed again, from all of `train`.

    Args:
        config: which probe, and how it is trained.
        train: features [n, E] or [n, N, E].
        train_labels: in 0…classes−1.
        tests: named sets of features of the same kind.
        classes: how many there are.
        key: of the initial parameters, the order of the clips and what is held out.
        width: classes of the compiled program, to share it among label sets; 0: `classes`.
        items: for each test set the item that each row is a view of, in ascending order: scores of an item's rows are
            averaged. Left out, every row is an item.
        name: for the progress bar and errors.

    Raises:
        ValueError: heads that do not divide the width.
        LabelError: too few training items to hold some out.
        FloatingPointError: the loss of every setting is not finite.
    """
    settings = config.settings()
    everything = np.arange(len(train))
    # Full float32 products also where an accelerator would shorten them: a probe is small.
    with jax.default_matmul_precision("highest"):
        fit = functools.partial(
            _fit, source=train, labels=train_labels, classes=classes, width=width or classes, key=key, name=name
        )
        if len(settings) == 1:
            validation, setting = (), 0
            scores = fit(config, everything).scores
        else:
            fit_R, held_R = selection.hold_out(train_labels, config.validation, key)
            tried = fit(config, fit_R)
            accuracy_P = (_predict(tried.scores, train, held_R) == train_labels[held_R]).mean(axis=(0, 2))
            validation = tuple(
                {**values, "accuracy": None if failed else float(accuracy)}
                for values, failed, accuracy in zip(settings, tried.diverged, accuracy_P, strict=True)
            )
            setting = int(np.where(tried.diverged, -1, accuracy_P).argmax())
            again = config.closed_form
            scores = fit(config.only(settings[setting]), everything).scores if again else tried.only(setting).scores
        predicted = {
            name: _predict(scores, test, np.arange(len(test)), None if items is None else items[name])[:, 0]
            for name, test in tests.items()
        }
    return Answers(predicted, settings[setting], validation)


@dataclasses.dataclass(frozen=True)
class _Computed:
    """A probe in closed form, as `grid.Trained` is one that was trained."""

    scores: Scores
    diverged: Bool[np.ndarray, "settings"]

    def only(self, setting: int) -> "_Computed":
        """The probe of one setting."""
        one = slice(setting, setting + 1)
        return _Computed(lambda features: self.scores(features)[:, one], self.diverged[one])


def _fit(
    config: ProbeConfig,
    fit_R: Int[np.ndarray, "R"],
    *,
    source: Rows,
    labels: Int[np.ndarray, "n"],
    classes: int,
    width: int,
    key: PRNGKeyArray,
    name: str,
) -> "grid.Trained | _Computed":
    """Every setting of a probe, fitted to some rows."""
    scale = _scale(config, source)
    if config.kind == "ridge":
        scores = ridge.fit(source, fit_R, labels, classes, config.penalty, scale)
        return _Computed(scores, np.zeros(len(config.penalty), bool))
    if config.kind == "knn":
        scores = knn.fit(source, fit_R, labels, width, config.neighbours, scale)
        return _Computed(scores, np.zeros(len(config.neighbours), bool))
    return grid.train(_model(config, width), config, source, fit_R, labels, classes, scale, key, name)


def _model(config: ProbeConfig, classes: int) -> grid.Model:
    if config.kind == "linear":
        return probes.LinearProbe(classes)
    if config.kind == "attentive":
        return probes.AttentiveProbe(classes, config.heads)
    return probes.AttentiveBlocksProbe(classes, config.heads, config.blocks)


def _scale(config: ProbeConfig, source: Rows) -> grid.Scale:
    width = source.shape[-1]
    if config.standardise:
        return grid.Scale(*channel_statistics(source))
    return grid.Scale(np.zeros(width, np.float32), np.ones(width, np.float32))


def _predict(
    scores: Scores, source: Rows, rows_R: Int[np.ndarray, "R"], items_R: Int[np.ndarray, "R"] | None = None
) -> Int[np.ndarray, "seeds settings items"]:
    """The likeliest class of every item, by every probe; rows of the same item follow each other."""
    size = min(256 if len(source.shape) == 2 else 16, len(rows_R))
    index, valid = zip(*rows.in_batches(rows_R, size), strict=True)
    batches = zip(rows.read_ahead(source, index), valid, strict=True)
    parts = [np.asarray(scores(features))[:, :, valid_B] for features, valid_B in batches]
    score_SxPxRxC = np.concatenate(parts, axis=2)
    if items_R is not None:
        _, first_I, rows_I = np.unique(items_R, return_index=True, return_counts=True)
        score_SxPxRxC = np.add.reduceat(score_SxPxRxC, first_I, axis=2) / rows_I[:, None]
    return score_SxPxRxC.argmax(axis=-1).astype(np.int32)
