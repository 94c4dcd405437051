"""An evaluation: checkpoint → features → probes → results."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from jepa_jax.data import sources
from jepa_jax.evaluation import controls, frozen_encoder, labelled_clips, probe_runs, representation
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.features import extractor, feature_set
from jepa_jax.evaluation.features.cache import Cache
from jepa_jax.evaluation.labelled_clips import LabelledClips
from jepa_jax.evaluation.probe_runs import TRAINED, UNTRAINED
from jepa_jax.evaluation.probes import velocity
from jepa_jax.evaluation.results import clip_predictions, probe_result, results_file
from jepa_jax.evaluation.results.velocity_result import VelocityResult
from jepa_jax.files import ownership
from jepa_jax.files.paths import is_remote, reachable, require_local
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, to_dict


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results for the table, the content of results.json and that of predictions.csv."""

    results: list[probe_result.ProbeResult]
    velocity: list[VelocityResult]
    record: dict[str, Any]
    predictions: list[clip_predictions.ClipPredictions]


def evaluate(
    config: EvalConfig,
    reference: str,
    out: epath.PathLike | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Probes the encoder of `reference`: a result for each task, probe and kind of features.

    Args:
        config: the clips and the probes.
        reference: a training run, weights or an untrained encoder, as `frozen_encoder.load` takes it.
        out: results.json; predictions.csv is written to the same folder. Existing files are replaced.
        cache: folder for features. Default: `features` beside `out`; a temporary folder without `out` or if that is on
            an object store.

    Raises:
        ConfigError: settings, a folder or a checkpoint reference that cannot be used.
        CheckpointError: no checkpoint, none of that step, or a damaged one.
        WeightsError: weights that cannot be read or downloaded.
        OwnershipError: another job writes to `out`.
        LabelError: a single class, or a test class without training clips.
        TooManySkippedError: too many clips that cannot be decoded.
        FloatingPointError: features or a probe's loss that are not finite.
        OSError: too little space for features, or results that cannot be written.
    """
    file = None if out is None else reachable(out)

    def run() -> Evaluation:
        with cache_folder(file, cache) as folder:
            return evaluate_encoder(config, frozen_encoder.load(reference, config.random_model), folder)

    return written(file, run)


def written(file: epath.Path | None, run: Callable[[], Evaluation]) -> Evaluation:
    """Runs an evaluation and writes its files, if there is a results file to write."""
    own = contextlib.nullcontext() if file is None else own_out(file, "results.json")
    with own as lock:
        evaluation = run()
        if file is not None and lock is not None:
            lock.check()
            clip_predictions.write(clip_predictions.path_beside(file), evaluation.predictions)
            results_file.write(file, evaluation.record)
    return evaluation


def own_out(out: epath.Path, example: str) -> contextlib.AbstractContextManager[ownership.Lock]:
    """Creates the folder of `out` and locks `out` against other jobs.

    Args:
        out: file for results.
        example: name of such a file, for the error.

    Raises:
        ConfigError: `out` is a folder.
        OwnershipError: another job writes to `out`.
    """
    if out.is_dir():
        raise ConfigError(f"--out={out} is a folder; name a file in it, as in {out / example}.")
    advice = "Two jobs would replace each other's results: wait for the other job, or name another --out."
    return ownership.owned(out.with_name(f"{out.name}.lock"), f"--out={out}", advice)


@contextlib.contextmanager
def cache_folder(out: epath.Path | None, cache: str | os.PathLike[str] | None) -> Iterator[pathlib.Path]:
    """Yields the folder of features: `cache`, else `features` beside the results, else a temporary folder.

    Features are memory-mapped, so their folder is local even if results are on an object store.

    Raises:
        ConfigError: `cache` is a URL.
    """
    if cache is not None:
        yield require_local(cache, "--cache")
    elif out is not None and not is_remote(out):
        yield pathlib.Path(out).parent / "features"
    else:
        with tempfile.TemporaryDirectory(prefix="features-") as folder:
            yield pathlib.Path(folder)


def evaluate_encoder(config: EvalConfig, encoder: frozen_encoder.FrozenEncoder, cache: pathlib.Path) -> Evaluation:
    """Probes an encoder; `cache` is the folder of features. Raises the errors of `evaluate`."""
    started = time.monotonic()
    opened = labelled_clips.open_clips(config, encoder.config, preprocessing=encoder.preprocessing)
    extracted = extract(config, opened, encoder, cache)
    results, predictions = probe_runs.run_probes(
        config,
        opened.pairs,
        extracted.probe_inputs,
        opened.train.classes,
        opened.test.names,
        opened.test.views,
        opened.groups,
    )
    skipped = {"train": opened.train.skipped, "test": opened.test.skipped}
    content = {
        "results": [dataclasses.asdict(result) for result in results],
        "velocity": [dataclasses.asdict(result) for result in extracted.velocity],
        "representation": extracted.measures,
        "checkpoint": encoder.record,
        "clip": to_dict(opened.clip),
        "dtype": extracted.dtype,
        "skipped": {name: [skip.path for skip in skips] for name, skips in skipped.items()},
        "feature_seconds": extracted.seconds,
        "seconds": round(time.monotonic() - started, 2),
        "device": jax.devices()[0].device_kind,
        "settings": to_dict(config),
        "training_settings": encoder.known_settings,
        "versions": workdir.versions(),
    }
    return Evaluation(results, extracted.velocity, content, predictions)


@dataclasses.dataclass(frozen=True)
class Extracted:
    """The features of an encoder and of the controls.

    Attributes:
        probe_inputs: in the order of the results.
        velocity: regressions of velocities; empty unless config.velocity.
        measures: label-free measures by encoder; empty unless config.representation.
        dtype: of the encoder's computation.
        seconds: of the extraction, by set.
    """

    probe_inputs: list[probe_runs.ProbeInput]
    velocity: list[VelocityResult]
    measures: dict[str, dict[str, float | None]]
    dtype: str
    seconds: dict[str, float]


def extract(
    config: EvalConfig, opened: LabelledClips, encoder: frozen_encoder.FrozenEncoder, cache: pathlib.Path
) -> Extracted:
    """The features of all clips by an encoder and the controls of the config; `cache` is their folder.

    Raises the errors of `feature_set.extract`.
    """
    trained, clip = encoder.config, opened.clip
    dtype = trained.dtype if config.dtype == "trained" else config.dtype
    encoder = frozen_encoder.resolve_attention(encoder, clip, dtype)
    encoders = {TRAINED: extractor.of_encoder(encoder, dtype)}
    if config.beside_untrained and config.trained_kinds and encoder.weights != "random":
        untrained = dataclasses.replace(frozen_encoder.untrained(encoder.config), preprocessing=encoder.preprocessing)
        encoders[UNTRAINED] = extractor.of_encoder(untrained, dtype)
    others = probe_runs.control_encoders(config, encoders[TRAINED])
    halves, views = {}, {}
    if config.representation:
        if encoder.weights == frozen_encoder.RELEASED:
            raise ConfigError(
                f"config.representation needs the masks of a training run, which {encoder.source} does not have."
            )
        halves = representation.channel_halves(trained)
        views = {f"{n} views": representation.masked_views(e, encoder.config, clip, dtype) for n, e in encoders.items()}
    backwards = {}
    if config.velocity and UNTRAINED in encoders and controls.REVERSED in others:
        backwards[UNTRAINED] = controls.encoder(controls.REVERSED, encoders[UNTRAINED], config.seed)
    reversed_names = {name: f"{name} {controls.REVERSED}" for name in backwards}
    probed = config.kinds_of_features + (velocity.KIND,) * config.velocity
    kinds = dict.fromkeys(others, probed) | dict.fromkeys([*views, *reversed_names.values()], ("frames",))
    measured = representation.KINDS if halves else ()
    store = Cache(cache, config.feature_dtype, config.memory_limit, config.keep_features)
    options = {"batch_size": config.batch_size, "workers": config.workers}
    # One call for each set, so that every clip is decoded once.
    trained_on = config.trained_kinds + (velocity.KIND,) * config.velocity
    of_train = encoders | {name: encode for name, encode in others.items() if name != controls.REVERSED}
    if trained_on:
        train_kinds = dict.fromkeys(of_train, trained_on)
        train_kinds |= dict.fromkeys(encoders, (*trained_on, "mean_levels") if halves else trained_on)
        train = feature_set.extract(of_train, opened.train, train_kinds, store, name="train", **options)
    else:  # released probes need only the names of the classes
        train = dict.fromkeys(of_train, feature_set.only_labels(opened.train))
    test = feature_set.extract(
        encoders | others | views | {reversed_names[name]: encode for name, encode in backwards.items()},
        opened.test,
        kinds | dict.fromkeys(encoders, (*probed, *measured)),
        store,
        name="test",
        **options,
    )
    probe_inputs = probe_runs.make_probe_inputs(train, test, halves, sources.kind_of(config.test))
    velocities = []
    if config.velocity:
        reversed_features = {name: test[key] for name, key in reversed_names.items()}
        if controls.REVERSED in test:
            reversed_features[TRAINED] = test[controls.REVERSED]
        train_IxFxXY, test_IxFxXY = (
            clips.velocities(np.arange(clips.size, dtype=np.int32)) for clips in (opened.train, opened.test)
        )
        velocities = velocity.run(train, test, reversed_features, train_IxFxXY, test_IxFxXY, config.seed)
    measures = {}
    if config.representation:
        measures = {name: representation.measure(test[name], test[f"{name} views"], halves) for name in encoders}
    seconds = {"train": round(train[TRAINED].seconds, 2), "test": round(test[TRAINED].seconds, 2)}
    return Extracted(probe_inputs, velocities, measures, dtype, seconds)
