"""An evaluation of given features: arrays → probes → results."""

import dataclasses
import os
import pathlib
import sys
import time

import jax
from etils import epath

from jepa_jax.data.evaluation_clips import FILE_TASK
from jepa_jax.evaluation import job, labelled_clips, probe_runs
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.features import given
from jepa_jax.evaluation.probes import splits
from jepa_jax.files.paths import reachable, require_local
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, to_dict


def evaluate(config: EvalConfig, folder: str | os.PathLike[str], out: epath.PathLike | None = None) -> job.Evaluation:
    """Probes features that any program wrote: a result for each probe whose kind of features the folder has.

    Only the probes of the config, its seed, holdout, groups and folds are used: without an encoder there are no
    controls.

    Args:
        config: the probes.
        folder: arrays and clips.csv, as in `features.given`.
        out: as in `job.evaluate`.

    Raises:
        ConfigError: a folder or settings that cannot be used.
        OwnershipError, LabelError, FloatingPointError, OSError: as `job.evaluate`.
    """
    path = require_local(folder, "--features")
    return job.written(None if out is None else reachable(out), lambda: _evaluate(config, path))


def _evaluate(config: EvalConfig, folder: pathlib.Path) -> job.Evaluation:
    started = time.monotonic()
    for name in ("velocity", "representation"):
        if getattr(config, name):
            raise ConfigError(f"config.{name} needs an encoder, and --features has none.")
    found = given.read(folder, config)
    tasks = {FILE_TASK: found.classes}
    pairs = []
    for task, name in probe_runs.pair_probes(config, tasks):
        kind = config.probes[name].features
        if kind in found.train.tokens and kind in found.test.tokens:
            labelled_clips.check_probe(name, config.probes[name], found.train.tokens[kind].shape[-1])
            pairs.append((task, name))
        else:
            print(f"Probe {name} is left out: {folder} has no {given.array_name(kind)}.", file=sys.stderr)
    results, predictions = probe_runs.run_probes(
        config,
        pairs,
        [probe_runs.ProbeInput(found.train, {probe_runs.TRAINED: found.test})],
        tasks,
        found.test_names,
        1,
        splits.training_groups(config, found.train_names),
    )
    encoder = found.description.get("checkpoint", {})
    content = {
        "results": [dataclasses.asdict(result) for result in results],
        "velocity": [],
        "representation": {},
        "checkpoint": {"source": str(folder), "step": encoder.get("step", 0), "weights": "features"},
        "clip": found.description.get("clip"),
        "dtype": None,
        "skipped": {},
        "feature_seconds": {},
        "seconds": round(time.monotonic() - started, 2),
        "device": jax.devices()[0].device_kind,
        "settings": to_dict(config),
        "training_settings": {},
        "versions": workdir.versions(),
    }
    return job.Evaluation(results, [], content, predictions)
