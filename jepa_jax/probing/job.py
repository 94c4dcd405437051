"""An evaluation from end to end: checkpoint → features → probes → results."""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax import models
from jepa_jax.config import ClipConfig, Config, ConfigError, nearest, to_dict
from jepa_jax.data.evaluation import EvaluationSet
from jepa_jax.probing import controls, encoders, features, labels, probes, representation, results, subjects
from jepa_jax.probing.cache import Cache
from jepa_jax.probing.config import EvalConfig
from jepa_jax.probing.subjects import TRAINED, UNTRAINED, Subject
from jepa_jax.training import workdir

Classes = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found: the results of the table, and the record of results.json."""

    results: list[results.ProbeResult]
    record: dict[str, Any]


def evaluate(
    config: EvalConfig,
    reference: str,
    out: str | pathlib.Path | None = None,
    cache: str | pathlib.Path | None = None,
) -> Evaluation:
    """Probes the encoder that `reference` names: a result for each task, probe and kind of features.

    Args:
        config: the clips and the probes.
        reference: WORKDIR, WORKDIR:STEP, `random`, random:WORKDIR or random:CONFIG.py[:RECIPE].
        out: where results.json is written; replaced if it is there.
        cache: folder for features; left out, `features` beside `out`, or none that stays if there is no `out`.

    Raises:
        ConfigError: settings, a folder or a checkpoint reference that cannot be used.
        CheckpointError: no checkpoint, none of that step, or a damaged one.
        LabelError: a single class, or a test class that training lacks.
        TooManySkippedError: too many clips that cannot be decoded.
        FloatingPointError: features or a probe's loss that are not finite.
        OSError: no room for features, or results that cannot be written.
    """
    out = None if out is None else pathlib.Path(out)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise ConfigError(f"--out={out} is a folder; name a file in it, as in {out / 'results.json'}.")
    encoder = encoders.load(reference, config.random_model)
    with cache_folder(out, cache) as folder:
        found = evaluate_encoder(config, encoder, folder)
    if out is not None:
        results.write(out, found.record)
    return found


@contextlib.contextmanager
def cache_folder(out: pathlib.Path | None, cache: str | pathlib.Path | None) -> Iterator[pathlib.Path]:
    """Where features are kept: `cache`, else `features` beside the results, else a folder that is deleted again."""
    if cache is not None or out is not None:
        yield pathlib.Path(cache) if cache is not None else cast(pathlib.Path, out).parent / "features"
        return
    with tempfile.TemporaryDirectory(prefix="features-") as folder:
        yield pathlib.Path(folder)


def evaluate_encoder(config: EvalConfig, encoder: encoders.FrozenEncoder, cache: pathlib.Path) -> Evaluation:
    """Probes an encoder; its features are kept in the folder `cache`. Raises what `evaluate` does."""
    started = time.monotonic()
    trained = encoder.config
    clip = ClipConfig(frames=config.frames or trained.clip.frames, size=config.size or trained.clip.size)
    check_fit(config, trained, clip)
    train_set, test_set = open_sets(config, clip)
    pairs = pair_probes(config, train_set.classes)

    dtype = trained.dtype if config.dtype == "trained" else config.dtype
    own = {TRAINED: features.of_encoder(encoder, dtype)}
    if config.beside_untrained and encoder.weights != "random":
        own[UNTRAINED] = features.of_encoder(encoders.untrained(trained), dtype)
    beside = subjects.control_encoders(config, own[TRAINED])
    store = Cache(cache, config.feature_dtype, config.memory_limit, config.keep_features)
    halves = representation.channel_halves(trained) if config.representation else {}
    train = _extract(config, store, train_set, "train", own, ("mean_levels",) if halves else ())
    train |= _extract(config, store, train_set, "train", {n: e for n, e in beside.items() if n != controls.REVERSED})
    test = _extract(config, store, test_set, "test", own, representation.KINDS if halves else ())
    test |= _extract(config, store, test_set, "test", beside)
    found = run_probes(
        config, pairs, subjects.pair(train, test, halves), train_set.classes, test_set.names, test_set.views
    )
    measures = {}
    if config.representation:
        views = {name: representation.masked_views(encode, trained, clip, dtype) for name, encode in own.items()}
        views = _extract(config, store, test_set, "masked test", views, ("frames",))
        measures = {name: representation.measure(test[name], views[name], halves) for name in own}
    skipped = {"train": train_set.skipped, "test": test_set.skipped}
    record = {
        "results": [dataclasses.asdict(result) for result in found],
        "representation": measures,
        "checkpoint": {
            "source": encoder.source,
            "step": encoder.step,
            "weights": encoder.weights,
            "parameters_sha256": encoder.fingerprint,
        },
        "clip": to_dict(clip),
        "dtype": dtype,
        "skipped": {name: [skip.path for skip in skips] for name, skips in skipped.items()},
        "feature_seconds": {"train": round(train[TRAINED].seconds, 2), "test": round(test[TRAINED].seconds, 2)},
        "seconds": round(time.monotonic() - started, 2),
        "device": jax.devices()[0].device_kind,
        "settings": to_dict(config),
        "training_settings": to_dict(trained),
        "versions": workdir.versions(),
    }
    return Evaluation(found, record)


def check_fit(config: EvalConfig, trained: Config, clip: ClipConfig) -> None:
    """Finds out before the first clip what would fail after the last.

    Raises:
        ConfigError: clips that the encoder cannot cut into tokens, or heads that do not divide its width.
    """
    encoder = models.build_encoder(trained.encoder)
    try:
        encoder.grid(jax.ShapeDtypeStruct((1, clip.frames, clip.size, clip.size, 3), jnp.float32))
    except ValueError as error:
        raise ConfigError(f"config.frames, config.size: {error}.") from error
    for name, probe in config.probes.items():
        if probe.attends and encoder.size.width % probe.heads:
            raise ConfigError(
                f"config.probes.{name}.heads is {probe.heads}, which does not divide the encoder's width, "
                f"{encoder.size.width}."
            )


def open_sets(config: EvalConfig, clip: ClipConfig) -> tuple[EvaluationSet, EvaluationSet]:
    """The clips that probes are trained on, and those they are scored on; only names are read.

    Raises:
        ConfigError: sources that cannot be used, or clips that are in both.
    """
    train_source, test_source = config.split_sources()
    # Of a training video one view is enough; those of a test video are averaged.
    single = dataclasses.replace(config.views, clips=1, crops=1)
    options = {"clip": clip, "seed": config.seed, "max_skip_fraction": config.max_skip_fraction}
    train = EvaluationSet(train_source, name="train", setting="config.train", views=single, **options)
    setting = "config.train" if config.holdout else "config.test"
    test = EvaluationSet(
        test_source, name="test", setting=setting, views=config.views, classes=train.classes, **options
    )
    shared = [] if config.fold_by else train.shared_with(test)
    if shared:
        raise ConfigError(
            f"config.train and config.test share {len(shared):,} clips, {shared[0]} for one: a probe must not be "
            "scored on what it was trained on. Leave them out of one of the two with exclude, or name another path or "
            "split."
        )
    return train, test


def pair_probes(config: EvalConfig, tasks: Classes) -> list[tuple[str, str]]:
    """The (task, probe) pairs to run, in the order of the tasks.

    Raises:
        ConfigError: a probe for a task that the clips have no labels of.
    """
    for name, probe in config.probes.items():
        if probe.task and probe.task not in tasks:
            hint = nearest(probe.task, tasks)
            raise ConfigError(f"config.probes.{name}.task is {probe.task!r}, which the clips have no labels of.{hint}")
    return [(task, name) for task in tasks for name, probe in config.probes.items() if probe.task in ("", task)]


def run_probes(
    config: EvalConfig,
    pairs: Sequence[tuple[str, str]],
    probed: Sequence[Subject],
    tasks: Classes,
    item_names: Sequence[str],
    views: int = 1,
) -> list[results.ProbeResult]:
    """Trains every probe of `pairs` on every subject; a result for each of its test sets.

    Args:
        config: the probes, and their seed.
        pairs: (task, probe) in the order of the results.
        probed: what is probed; within a pair the results follow their order.
        tasks: names of the classes of each task.
        item_names: of all test items, also of those that could not be decoded.
        views: rows of a test item; what a probe says about them is averaged.

    Raises:
        LabelError: labels that no probe can be trained or scored on.
        FloatingPointError: a probe's loss that is not finite.
    """
    for subject in probed:
        for row, test in subject.tests.items():
            if len(set((test.items // views).tolist())) < 2:
                raise labels.LabelError(
                    f"the test set ({row}) has one clip; how sure an accuracy is takes at least two."
                )
    width = max((len(tasks[task]) for task, _ in pairs), default=0)  # one compiled program for all label sets
    key = jax.random.key(config.seed)
    folds = subjects.folds(config, item_names) if config.fold_by else []
    found = []
    for task, name in pairs:
        for subject in probed:
            if config.probes[name].tokens not in subject.train.tokens:
                continue  # some controls have a single vector a clip
            parts = [subjects.hold_out(subject, items, views) for items in folds] or [subject]
            runs = [_run_probe(config, task, name, part, tasks[task], item_names, views, width, key) for part in parts]
            found += [results.pool(rows) if folds else rows[0] for rows in zip(*runs, strict=True)]
    return found


def _extract(
    config: EvalConfig,
    store: Cache,
    clips: EvaluationSet,
    name: str,
    encode_with: Mapping[str, features.Encode],
    kinds: Sequence[str] = (),
) -> dict[str, features.Features]:
    """What the probes read and `kinds`, of a set of clips, by what makes them."""
    if not encode_with:
        return {}
    wanted = tuple(dict.fromkeys([*config.kinds_of_tokens, *kinds]))
    options = {"batch_size": config.batch_size, "workers": config.workers, "name": name}
    return features.extract(encode_with, clips, wanted, store, **options)


def _run_probe(
    config: EvalConfig,
    task: str,
    name: str,
    subject: Subject,
    class_names: Sequence[str],
    item_names: Sequence[str],
    views: int,
    width: int,
    key: jax.Array,
) -> list[results.ProbeResult]:
    """One probe on one subject."""
    probe = config.probes[name]
    items = {row: test.items // views for row, test in subject.tests.items()}
    first = {row: np.unique(item_R, return_index=True)[1] for row, item_R in items.items()}
    known = {
        row: labels.seen_classes(task, subject.train.labels[task], test.labels[task][first[row]], class_names)
        for row, test in subject.tests.items()
    }
    train_labels, _, classes = next(iter(known.values()))
    started = time.monotonic()
    answers = probes.run(
        probe,
        subject.train.tokens[probe.tokens],
        train_labels,
        {row: test.tokens[probe.tokens] for row, test in subject.tests.items()},
        len(classes),
        key,
        width=width,
        items=items,
        name=" ".join([task, name, next(iter(subject.tests))]),
    )
    return [
        results.score(
            features=row,
            task=task,
            probe=name,
            predicted_SxI=answers.predicted[row],
            train_labels=train_labels,
            test_labels=known[row][1],
            class_names=classes,
            item_names=[item_names[int(item)] for item in items[row][first[row]]],
            chosen=answers.chosen,
            validation=answers.validation,
            seconds=time.monotonic() - started,
        )
        for row in subject.tests
    ]
