"""Scores a fine-tuned classifier on its test clips: results.json and predictions.csv, as an evaluation writes them."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, Int

from jepa_jax.checkpoints import reader, tree_paths
from jepa_jax.config import MeshConfig
from jepa_jax.data.evaluation_clips import EvaluationSet
from jepa_jax.distributed import processes, sharding
from jepa_jax.evaluation.probe_runs import TRAINED
from jepa_jax.evaluation.results import clip_predictions, probe_result, results_file, table
from jepa_jax.finetune.classification import Classifier
from jepa_jax.finetune.labelled_sources import LabelledSources
from jepa_jax.models import pixels
from jepa_jax.progress import Progress
from jepa_jax.run_dir import workdir
from jepa_jax.settings import to_dict

RESULTS = "results.json"
FINE_TUNED = "fine-tuned"  # of `checkpoint.weights` in the results


def score(classifier: Classifier, opened: LabelledSources, folder: epath.Path) -> None:
    """Scores the newest checkpoint of a run and writes the results to its folder. Collective; process 0 computes.

    The result has the name of the head as its probe, so that `evaluate --compare` puts it beside a frozen probe of that
    name.

    Raises:
        CheckpointError: the run has no checkpoint, or all are damaged.
        TooManySkippedError: too many test clips cannot be decoded.
    """
    step, path = reader.choose(folder)
    params = reader.load_group(path, "params")
    processes.from_main(lambda: _score(classifier, opened, params, step, folder))


def _score(classifier: Classifier, opened: LabelledSources, params: Any, step: int, folder: epath.Path) -> None:
    started, config, test = time.monotonic(), classifier.config, opened.test
    item_I, label_I, probability_IxC = predict(classifier, opened.test, params)
    seconds = round(time.monotonic() - started, 2)
    predicted_SxI = probability_IxC.argmax(axis=-1)[None].astype(np.int32)
    names, name = test.names, config.head.kind
    clips = [names[int(item)] for item in item_I]
    chosen = {"lr": config.optim.peak_lr, "weight_decay": config.optim.weight_decay}
    result = probe_result.score(
        features=TRAINED,
        task=classifier.task,
        probe=name,
        predicted_SxI=predicted_SxI,
        train_labels=opened.label_I,
        test_labels=label_I,
        class_names=classifier.classes,
        item_names=clips,
        chosen=chosen,
        seconds=seconds,
    )
    predictions = clip_predictions.ClipPredictions(
        features=TRAINED,
        task=classifier.task,
        probe=name,
        clips=clips,
        class_names=classifier.classes,
        label_I=label_I,
        predicted_SxI=predicted_SxI,
        probability_SxI=probability_IxC.max(axis=-1)[None],
    )
    settings = to_dict(config)
    record = {
        "results": [dataclasses.asdict(result)],
        "velocity": [],
        "representation": {},
        "checkpoint": {
            "source": str(folder),
            "step": step,
            "weights": FINE_TUNED,
            "parameters_sha256": tree_paths.fingerprint(params["encoder"]),
        },
        "clip": to_dict(config.clip),
        "dtype": config.dtype,
        "skipped": {"test": [skip.path for skip in test.skipped]},
        "feature_seconds": {"test": seconds},
        "seconds": seconds,
        "device": jax.devices()[0].device_kind,
        # What --compare reads of an evaluation's settings.
        "settings": settings | {"probes": {name: {FINE_TUNED: True, **settings["head"]}}},
        "training_settings": settings,
        "versions": workdir.versions(),
    }
    clip_predictions.write(clip_predictions.path_beside(folder / RESULTS), [predictions])
    results_file.write(folder / RESULTS, record)
    print(table.table([result]))
    print(f"Written to {folder / RESULTS}.", flush=True)


def predict(
    classifier: Classifier, test: EvaluationSet, params: Any
) -> tuple[Int[np.ndarray, "I"], Int[np.ndarray, "I"], Float[np.ndarray, "I classes"]]:
    """Returns the items that could be decoded, their labels and the probability of each class, mean over views.

    The clips are computed on this process's devices.
    """
    config, devices = classifier.config, jax.local_devices()
    size = -(-min(config.batch_size, test.rows) // len(devices)) * len(devices)
    mesh = sharding.make_mesh(MeshConfig(), size, devices)
    params = jax.device_put(params, sharding.replicated(mesh))

    def of_batch(params: Any, video_BxFxYxXxC: jax.Array) -> jax.Array:
        return jax.nn.softmax(classifier.logits(params, pixels.normalise(video_BxFxYxXxC)))

    classify = jax.jit(sharding.on_mesh(mesh, of_batch), out_shardings=sharding.replicated(mesh))
    items, labels, probabilities = [], [], []
    batches = -(-test.rows // size)
    with Progress(batches, "batch", name="test clips", clips_each=size) as bar:
        for number, batch in enumerate(test.batches(size, config.data.workers), start=1):
            probability_BxC = classify(params, jax.device_put(batch["video"], sharding.batch_sharding(mesh)))
            valid_B = batch["valid"]
            items.append(batch["item"][valid_B])
            labels.append(np.asarray(batch["labels"][classifier.task])[valid_B])
            probabilities.append(np.asarray(probability_BxC)[valid_B])
            bar.update(number)
    item_I, first_I, rows_I = np.unique(np.concatenate(items), return_index=True, return_counts=True)
    total_IxC = np.add.reduceat(np.concatenate(probabilities), first_I, axis=0)
    return item_I, np.concatenate(labels)[first_I], total_IxC / rows_I[:, None]
