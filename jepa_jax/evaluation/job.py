"""An evaluation: checkpoint → features → probes → results."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jepa_jax import models
from jepa_jax.config import ClipConfig, Config
from jepa_jax.data import sources
from jepa_jax.data.evaluation_clips import EvaluationSet
from jepa_jax.evaluation import controls, frozen_encoder, probe_runs, representation
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.evaluation.features import extractor, feature_set
from jepa_jax.evaluation.features.cache import Cache
from jepa_jax.evaluation.probe_runs import TRAINED, UNTRAINED
from jepa_jax.evaluation.probes import splits, velocity
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
        reference: WORKDIR, WORKDIR:STEP, `random`, random:WORKDIR or random:CONFIG.py[:RECIPE].
        out: results.json; predictions.csv is written to the same folder. Existing files are replaced.
        cache: folder for features. Default: `features` beside `out`; a temporary folder without `out` or if that is on
            an object store.

    Raises:
        ConfigError: settings, a folder or a checkpoint reference that cannot be used.
        CheckpointError: no checkpoint, none of that step, or a damaged one.
        OwnershipError: another job writes to `out`.
        LabelError: a single class, or a test class without training clips.
        TooManySkippedError: too many clips that cannot be decoded.
        FloatingPointError: features or a probe's loss that are not finite.
        OSError: too little space for features, or results that cannot be written.
    """
    file = None if out is None else reachable(out)
    own = contextlib.nullcontext() if file is None else own_out(file, "results.json")
    with own as lock, cache_folder(file, cache) as folder:
        evaluation = evaluate_encoder(config, frozen_encoder.load(reference, config.random_model), folder)
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
    trained = encoder.config
    clip = ClipConfig(frames=config.frames or trained.clip.frames, size=config.size or trained.clip.size)
    check_fit(config, trained, clip)
    train_set, test_set = open_sets(config, clip)
    pairs = probe_runs.pair_probes(config, train_set.classes)
    groups = splits.training_groups(config, train_set.names)

    dtype = trained.dtype if config.dtype == "trained" else config.dtype
    encoder = frozen_encoder.resolve_attention(encoder, clip, dtype)
    encoders = {TRAINED: extractor.of_encoder(encoder, dtype)}
    if config.beside_untrained and encoder.weights != "random":
        encoders[UNTRAINED] = extractor.of_encoder(frozen_encoder.untrained(encoder.config), dtype)
    others = probe_runs.control_encoders(config, encoders[TRAINED])
    halves, views = {}, {}
    if config.representation:
        halves = representation.channel_halves(trained)
        views = {f"{n} views": representation.masked_views(e, encoder.config, clip, dtype) for n, e in encoders.items()}
    backwards = {}
    if config.velocity:
        check_velocity(config, clip)
        if UNTRAINED in encoders and controls.REVERSED in others:
            backwards[UNTRAINED] = controls.encoder(controls.REVERSED, encoders[UNTRAINED], config.seed)
    reversed_names = {name: f"{name} {controls.REVERSED}" for name in backwards}
    probed = config.kinds_of_features + (velocity.KIND,) * config.velocity
    kinds = dict.fromkeys(others, probed) | dict.fromkeys([*views, *reversed_names.values()], ("frames",))
    measured = representation.KINDS if halves else ()
    store = Cache(cache, config.feature_dtype, config.memory_limit, config.keep_features)
    options = {"batch_size": config.batch_size, "workers": config.workers}
    # One call for each set, so that every clip is decoded once.
    train = feature_set.extract(
        encoders | {name: encode for name, encode in others.items() if name != controls.REVERSED},
        train_set,
        kinds | dict.fromkeys(encoders, (*probed, "mean_levels") if halves else probed),
        store,
        name="train",
        **options,
    )
    test = feature_set.extract(
        encoders | others | views | {reversed_names[name]: encode for name, encode in backwards.items()},
        test_set,
        kinds | dict.fromkeys(encoders, (*probed, *measured)),
        store,
        name="test",
        **options,
    )
    probe_inputs = probe_runs.make_probe_inputs(train, test, halves, sources.kind_of(config.test))
    results, predictions = probe_runs.run_probes(
        config, pairs, probe_inputs, train_set.classes, test_set.names, test_set.views, groups
    )
    velocity_results = []
    if config.velocity:
        reversed_features = {name: test[key] for name, key in reversed_names.items()}
        if controls.REVERSED in test:
            reversed_features[TRAINED] = test[controls.REVERSED]
        train_IxFxXY, test_IxFxXY = (
            clips.velocities(np.arange(clips.size, dtype=np.int32)) for clips in (train_set, test_set)
        )
        velocity_results = velocity.run(train, test, reversed_features, train_IxFxXY, test_IxFxXY, config.seed)
    measures = {}
    if config.representation:
        measures = {name: representation.measure(test[name], test[f"{name} views"], halves) for name in encoders}
    skipped = {"train": train_set.skipped, "test": test_set.skipped}
    content = {
        "results": [dataclasses.asdict(result) for result in results],
        "velocity": [dataclasses.asdict(result) for result in velocity_results],
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
    return Evaluation(results, velocity_results, content, predictions)


def check_fit(config: EvalConfig, trained: Config, clip: ClipConfig) -> None:
    """Checks clips and probes against the encoder before any clip is decoded.

    Raises:
        ConfigError: clips that the encoder cannot split into tokens, a level that it lacks, or heads that do not divide
            its width.
    """
    encoder = models.build_encoder(trained.encoder)
    try:
        encoder.grid(jax.ShapeDtypeStruct((1, *clip.shape), jnp.float32))
    except ValueError as error:
        raise ConfigError(f"config.frames, config.size: {error}.") from error
    for name, probe in config.probes.items():
        if probe.level is not None and probe.level > encoder.levels:
            raise ConfigError(
                f"config.probes.{name}.tokens is {probe.tokens!r}; the encoder has levels 1 to {encoder.levels}."
            )
        if probe.attends and _width(probe, encoder) % probe.heads:
            raise ConfigError(
                f"config.probes.{name}.heads is {probe.heads}, which does not divide the width of its tokens, "
                f"{_width(probe, encoder)}."
            )


def check_velocity(config: EvalConfig, clip: ClipConfig) -> None:
    """Checks that velocities can be regressed.

    Raises:
        ConfigError: clips with unknown velocities, or of fewer than three frames.
    """
    for part, settings in (("train", config.train), ("test", config.test)):
        if not sources.kind_of(settings).tracked:
            raise ConfigError(
                "config.velocity needs clips with known velocities, which only sprites have; "
                f"config.{part}.kind is {settings.kind!r}."
            )
    if clip.frames < 3:
        raise ConfigError(f"config.velocity needs clips of at least 3 frames; they have {clip.frames}.")


def _width(probe: ProbeConfig, encoder: models.Encoder) -> int:
    return encoder.size.width * (
        encoder.levels if probe.tokens.endswith(" levels") and "stacked" not in probe.tokens else 1
    )


@contextlib.contextmanager
def _name_setting(config: EvalConfig, part: Literal["train", "test"], of_holdout: Sequence[str]) -> Iterator[None]:
    """Errors about a source name the setting that the user gave, from which the source's own setting is derived."""
    try:
        path = getattr(config, part).path
        with sources.explain_path(f"config.{part}.path", path, config.data.root):
            yield
    except sources.NothingLeftError as error:
        if not config.holdout or error.key not in of_holdout:
            raise
        raise sources.NothingLeftError("config.holdout", error.key, config.holdout, error.paths) from error


def open_sets(config: EvalConfig, clip: ClipConfig) -> tuple[EvaluationSet, EvaluationSet]:
    """Opens the training and test clips; reads only their names.

    Raises:
        ConfigError: sources that cannot be used, or clips that are in both.
    """
    train_source, test_source = config.split_sources()
    # Training videos have one view; the views of a test video are averaged.
    single = dataclasses.replace(config.views, clips=1, crops=1)
    options = {"clip": clip, "seed": config.seed, "max_skip_fraction": config.max_skip_fraction}
    with _name_setting(config, "train", ("exclude",)):
        train = EvaluationSet(train_source, name="train", setting="config.train", views=single, **options)
    part = "train" if config.holdout else "test"
    with _name_setting(config, part, ("include", "exclude")):
        test = EvaluationSet(
            test_source, name="test", setting=f"config.{part}", views=config.views, classes=train.classes, **options
        )
    shared = [] if config.fold_by else train.shared_with(test)
    if shared:
        raise ConfigError(
            f"config.train and config.test share {len(shared):,} clips, such as {shared[0]}: a probe must not be "
            "scored on clips that it was trained on. Exclude them from one of the two, or name another path or split."
        )
    return train, test
