"""Fits one probe to features, chooses among its settings, and predicts test sets."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from jepa_jax.evaluation.eval_config import ProbeConfig, Setting
from jepa_jax.evaluation.features.rows import Rows, Standardizer, channel_statistics, in_batches, read_ahead
from jepa_jax.evaluation.probes import grid, knn, logistic, ridge
from jepa_jax.evaluation.probes.splits import Split, validation_splits
from jepa_jax.models import probe_heads

Scores = Callable[[Num[np.ndarray, "B *S E"]], Float[Array | np.ndarray, "seeds settings B classes"]]
Fit = Callable[[ProbeConfig, Int[np.ndarray, "R"]], "grid.Trained | _ClosedForm"]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of a probe for test sets.

    Attributes:
        predicted: classes for each test set, a row for each probe seed (deterministic probes have one).
        probability: of each predicted class (for nearest neighbours, its share of the votes); None for ridge, whose
            scores are not probabilities.
        chosen: the chosen settings.
        validation: each setting tried with its mean `accuracy` on held-out training items, None if it diverged, and for
            logistic regression the mean `cross_entropy`; empty if there was a single setting.
        converged: whether a logistic probe reached its optimum; None for other probes.
    """

    predicted: Mapping[str, Int[np.ndarray, "seeds items"]]
    probability: Mapping[str, Float[np.ndarray, "seeds items"] | None]
    chosen: Setting
    validation: tuple[Mapping[str, float | int | None], ...] = ()
    converged: bool | None = None


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
    groups: Int[np.ndarray, "n"] | None = None,
    name: str = "probe",
) -> Predictions:
    """Trains a probe and predicts test sets.

    With several settings, each is fitted to a part of `train` and scored on the rest, and the one with the highest
    accuracy is chosen; for logistic regression the one with the lowest cross-entropy, since accuracies on few clips are
    often equal. Deterministic probes are cross-validated, then fitted to all of `train`. Other probes hold out one part
    and are not fitted again.

    Args:
        config: the probe and its training settings.
        train: features [n, E] or [n, N, E].
        train_labels: in 0…classes − 1.
        tests: named sets of features of the same kind.
        classes: number of classes.
        key: of the initial parameters, the order of the clips and the validation split.
        width: number of classes in the compiled program, so that label sets share it; 0: `classes`.
        items: for each test set, the item of each row, ascending; scores of an item's rows are averaged. None: every
            row is an item.
        groups: group of each row of `train`; a group is held out as a whole. None: every row is its own group.
        name: for the progress bar and errors.

    Raises:
        ValueError: heads that do not divide the width.
        LabelError: too few training items or groups to hold some out.
        ConfigError: features that are too large for a logistic probe.
        FloatingPointError: the loss of every setting is not finite.
    """
    width, standardizer = width or classes, _standardizer(config, train)
    splits = []
    if len(config.settings()) > 1:
        splits = validation_splits(train_labels, config.validation, key, groups, every=config.deterministic)
    # Accelerators would round float32 products; a probe is small enough for full precision.
    with jax.default_matmul_precision("highest"):
        if config.kind == "logistic":
            problem = logistic.Problem(train, train_labels, classes, width, standardizer)
            chosen = _chosen_logistic(config, problem, splits, len(train))
        else:
            fit = _fitter(config, train, train_labels, classes, width, standardizer, key, name)
            chosen = _chosen(config, fit, splits, train, train_labels)
        score_SxIxC = {
            name: _item_scores(chosen.scores, test, np.arange(len(test)), None if items is None else items[name])[:, 0]
            for name, test in tests.items()
        }
    return Predictions(
        {name: score.argmax(axis=-1).astype(np.int32) for name, score in score_SxIxC.items()},
        {name: None if config.kind == "ridge" else score.max(axis=-1) for name, score in score_SxIxC.items()},
        chosen.setting,
        chosen.validation,
        chosen.converged,
    )


class _Chosen(NamedTuple):
    """The probe with the best setting, and the fields of `Predictions` about the choice."""

    scores: Scores
    setting: Setting
    validation: tuple[Mapping[str, float | int | None], ...] = ()
    converged: bool | None = None


def _chosen_logistic(config: ProbeConfig, problem: logistic.Problem, splits: Sequence[Split], rows: int) -> _Chosen:
    tried = problem.cross_validate(config.penalty, splits) if splits else []
    penalty = min(tried, key=lambda each: each.cross_entropy).penalty if tried else config.penalty[0]
    fitted = problem.fit(penalty, np.arange(rows))
    return _Chosen(fitted.scores, {"penalty": penalty}, tuple(each._asdict() for each in tried), fitted.converged)


def _chosen(
    config: ProbeConfig,
    fit: Fit,
    splits: Sequence[Split],
    source: Rows,
    labels: Int[np.ndarray, "n"],
) -> _Chosen:
    settings, everything = config.settings(), np.arange(len(source))
    if not splits:
        return _Chosen(fit(config, everything).scores, settings[0])
    tried = [fit(config, split.fit) for split in splits]
    correct_SxPxR = [
        _item_scores(part.scores, source, split.held).argmax(-1) == labels[split.held]
        for part, split in zip(tried, splits, strict=True)
    ]
    accuracy_P = np.concatenate(correct_SxPxR, axis=2).mean(axis=(0, 2))
    diverged_P = np.any([part.diverged for part in tried], axis=0)
    validation = tuple(
        {**values, "accuracy": None if failed else float(accuracy)}
        for values, failed, accuracy in zip(settings, diverged_P, accuracy_P, strict=True)
    )
    best = int(np.where(diverged_P, -1, accuracy_P).argmax())
    fitted = fit(config.only(settings[best]), everything) if config.deterministic else tried[0].only(best)
    return _Chosen(fitted.scores, settings[best], validation)


@dataclasses.dataclass(frozen=True)
class _ClosedForm:
    """A closed-form probe, with the interface of `grid.Trained`."""

    scores: Scores
    diverged: Bool[np.ndarray, "settings"]

    def only(self, setting: int) -> "_ClosedForm":
        """The probe of one setting."""
        one = slice(setting, setting + 1)
        return _ClosedForm(lambda features: self.scores(features)[:, one], self.diverged[one])


def _fitter(
    config: ProbeConfig,
    source: Rows,
    labels: Int[np.ndarray, "n"],
    classes: int,
    width: int,
    standardizer: Standardizer,
    key: PRNGKeyArray,
    name: str,
) -> Fit:
    """Returns a function that fits every setting of the probe to a subset of the rows."""
    if config.kind == "ridge":
        return lambda config, fit_R: _ClosedForm(
            ridge.fit(source, fit_R, ridge.class_indicators(labels, classes), config.penalty, standardizer),
            np.zeros(len(config.penalty), bool),
        )
    if config.kind == "knn":
        return lambda config, fit_R: _ClosedForm(
            knn.fit(source, fit_R, labels, width, config.neighbours, standardizer),
            np.zeros(len(config.neighbours), bool),
        )
    model = build_head(config, width)
    return lambda config, fit_R: grid.train(model, config, source, fit_R, labels, classes, standardizer, key, name)


def build_head(config: ProbeConfig, classes: int) -> grid.Model:
    """The flax module of a linear or attentive probe: features [B, E] or [B, N, E] → logits [B, classes]."""
    if config.kind == "linear":
        return probe_heads.LinearProbe(classes)
    if config.kind == "attentive":
        return probe_heads.AttentiveProbe(classes, config.heads)
    return probe_heads.AttentiveBlocksProbe(classes, config.heads, config.blocks)


def _standardizer(config: ProbeConfig, source: Rows) -> Standardizer:
    width = source.shape[-1]
    if config.standardise:
        return Standardizer(*channel_statistics(source))
    return Standardizer(np.zeros(width, np.float32), np.ones(width, np.float32))


def _item_scores(
    scores: Scores, source: Rows, rows_R: Int[np.ndarray, "R"], items_R: Int[np.ndarray, "R"] | None = None
) -> Float[np.ndarray, "seeds settings items classes"]:
    """Scores of every probe for every item, averaged over the item's consecutive rows."""
    size = min(256 if len(source.shape) == 2 else 16, len(rows_R))
    index, valid = zip(*in_batches(rows_R, size), strict=True)
    batches = zip(read_ahead(source, index), valid, strict=True)
    parts = [np.asarray(scores(features))[:, :, valid_B] for features, valid_B in batches]
    score_SxPxRxC = np.concatenate(parts, axis=2)
    if items_R is not None:
        _, first_I, rows_I = np.unique(items_R, return_index=True, return_counts=True)
        score_SxPxRxC = np.add.reduceat(score_SxPxRxC, first_I, axis=2) / rows_I[:, None]
    return score_SxPxRxC
