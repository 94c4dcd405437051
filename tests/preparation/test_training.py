"""Tiny copies of the study's datasets: prepared, used for mixed-regime training, and evaluated."""

import json
import runpy

import numpy as np
import pytest
import tiny_run

from jepa_jax.config import Config, SourceConfig
from jepa_jax.data import EvaluationSet
from jepa_jax.data.preparation import build, frames, sets
from jepa_jax.evaluation import job as probing
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.settings import parse
from jepa_jax.training import loop

SMALL = tiny_run.SETTINGS | {"steps": 5, "clip": {"frames": 4, "size": 32}}


@pytest.mark.slow
def test_training_and_evaluation_on_prepared_sets(
    raw_ucf101, raw_something_something_v2, raw_diving48, raw_imagenet, tmp_path
):
    raws = {
        "ucf101": raw_ucf101,
        "something_something_v2": raw_something_something_v2,
        "diving48": raw_diving48,
        "imagenet100": raw_imagenet,
    }
    root = tmp_path / "data"
    for name, raw in raws.items():
        build.prepare(sets.OPEN[name](raw), root / name, frames.JpegSettings(), 0)

    settings = runpy.run_path("configs/mixed.py")["get_config"]("fwm_hw_ld")
    settings.data.root = str(root)
    opened = {name: source.to_dict() for name, source in settings.data.sources.items()}
    config = parse(Config, SMALL | {"data": {"sources": opened, "workers": 0}})
    outcome = loop.train(config, tmp_path / "run")
    assert outcome.stopped_by is None
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert not (tmp_path / "run" / "skipped.jsonl").exists()

    diving48 = str(root / "diving48")
    evaluation = EvalConfig(
        train=SourceConfig(path=diving48),
        test=SourceConfig(path=diving48, split="test"),
        probes={"linear": ProbeConfig(epochs=2)},
        batch_size=4,
        workers=0,
        beside_untrained=False,
    )
    probing.evaluate(evaluation, str(tmp_path / "run"), tmp_path / "results.json")
    record = json.loads((tmp_path / "results.json").read_text())
    row = record["results"][0]
    assert (row["train"], row["test"], len(row["class_names"])) == (4, 2, 3)

    clip = config.clip
    for fold in (1, 2, 3):
        test = SourceConfig(path=str(root / "ucf101"), split="test", fold=fold)
        (batch,) = EvaluationSet(test, clip=clip).batches(3)
        assert batch["labels"]["class"].tolist() == [0, 1, 2]
        assert batch["valid"].all()
