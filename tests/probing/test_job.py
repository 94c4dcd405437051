import dataclasses
import json
import pathlib
import re

import jsonschema
import numpy as np
import pytest

from jepa_jax.config import ConfigError, SourceConfig, to_dict
from jepa_jax.probing import job, probes, results
from jepa_jax.probing.config import EvalConfig, ProbeConfig
from jepa_jax.training import workdir


def evaluate(*arguments):
    return job.evaluate(*arguments).results


def with_probe(evaluation, **settings):
    return dataclasses.replace(evaluation, probes={"one": ProbeConfig(**settings)})


def test_an_evaluation_from_end_to_end(evaluation, training_run, tmp_path):
    out = tmp_path / "new" / "results.json"
    found = evaluate(evaluation, f"random:{training_run}", out)
    assert [(result.task, result.probe) for result in found] == [
        ("class", "linear"),
        ("class", "attentive"),
        ("class", "knn"),
    ]
    assert all(result.accuracy == 1 for result in found)

    record = json.loads(out.read_text())
    assert record["results"] == json.loads(json.dumps([dataclasses.asdict(result) for result in found]))
    first = found[0]
    assert (first.chance, first.majority, first.class_names) == (0.5, 0.5, ("blue", "red"))
    assert (first.train, first.test) == (20, 12)
    fingerprint = record["checkpoint"].pop("parameters_sha256")
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)
    assert record["checkpoint"] == {"source": str(training_run), "step": 0, "weights": "random"}
    assert record["clip"] == {"frames": 2, "size": 16}
    assert record["dtype"] == "float32"
    assert record["skipped"] == {"train": [], "test": []}
    assert record["settings"] == json.loads(json.dumps(to_dict(evaluation)))
    assert record["training_settings"] == json.loads(json.dumps(to_dict(workdir.load_config(training_run))))
    assert {"python", "jax", "flax", "jepa_jax"} <= record["versions"].keys()
    schema = json.loads((pathlib.Path(results.__file__).parent / "results.schema.json").read_text())
    jsonschema.validate(json.loads(out.read_text()), schema)
    assert sorted(path.name for path in out.parent.iterdir()) == ["features", "results.json"]


@pytest.mark.parametrize("kind", ["images", "sprites"])
def test_clips_in_both_sets_are_refused(evaluation, training_run, pictures, kind):
    if kind == "images":
        train = SourceConfig(kind="images", path=str(pictures / "train"))
        test = SourceConfig(kind="images", path=f"{pictures}/./train", include="blue/|red/[12]")
        shared = f"12 clips, {pictures}/train/blue/0.png for one"
    else:
        train, test = (SourceConfig(kind="sprites", clips=count) for count in (20, 5))
        shared = "5 clips, sprites-2/easy/train/0/0 for one"
    with pytest.raises(ConfigError, match=re.escape(f"config.train and config.test share {shared}: a probe must not")):
        evaluate(dataclasses.replace(evaluation, train=train, test=test), f"random:{training_run}")


def test_evaluating_again_gives_the_same(evaluation, training_run, tmp_path):
    config, out = with_probe(evaluation, epochs=1), tmp_path / "results.json"
    runs = []
    for _ in range(2):
        evaluate(config, f"{training_run}:3", out)
        record = json.loads(out.read_text())
        assert (record["checkpoint"]["step"], record["checkpoint"]["weights"]) == (3, "ema")
        runs.append([{k: v for k, v in result.items() if k != "seconds"} for result in record["results"]])
    assert runs[0] == runs[1]


def test_the_untrained_encoder_is_probed_beside_the_trained(evaluation, training_run):
    config = with_probe(evaluation, epochs=1)
    ((trained, beside), (alone,)) = (evaluate(config, f"{prefix}{training_run}") for prefix in ("", "random:"))
    assert (trained.features, beside.features, alone.features) == ("trained", "untrained", "trained")
    assert (beside.correct, beside.items) == (alone.correct, alone.items)
    (without,) = evaluate(dataclasses.replace(config, beside_untrained=False), str(training_run))
    assert (without.features, without.correct) == ("trained", trained.correct)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_memory_limit_decides_where_features_lie(evaluation, training_run, monkeypatch, limit):
    config = with_probe(evaluation, kind="attentive", tokens="all", heads=2, epochs=1)
    seen = []

    def spy(probe, train, train_labels, tests, *_, **__):
        seen.append((type(train), type(tests["trained"])))
        return probes.Answers({"trained": np.zeros((1, len(tests["trained"])), np.int32)}, {})

    monkeypatch.setattr("jepa_jax.probing.probes.run", spy)
    evaluate(dataclasses.replace(config, memory_limit=limit), f"random:{training_run}")
    assert seen == [(np.ndarray, np.ndarray) if limit else (np.memmap, np.memmap)]


def test_holdout_takes_the_test_set_from_the_training_path(evaluation, training_run):
    config = dataclasses.replace(with_probe(evaluation, kind="knn"), test=SourceConfig(), holdout=r"[789]\.png")
    (result,) = evaluate(config, f"random:{training_run}")
    assert (result.train, result.test) == (14, 6)


def test_sprites_give_three_tasks_from_one_extraction(training_run):
    config = EvalConfig(
        train=SourceConfig(kind="sprites", split="train", clips=200),
        test=SourceConfig(kind="sprites", split="test", clips=40),
        probes={"linear": ProbeConfig(epochs=1), "motion_knn": ProbeConfig(kind="knn", task="motion")},
        frames=4,
        batch_size=40,
    )
    found = evaluate(config, f"random:{training_run}")
    assert [(result.task, result.probe, len(result.class_names)) for result in found] == [
        ("appearance", "linear", 16),
        ("motion", "linear", 12),
        ("motion", "motion_knn", 12),
        ("order", "linear", 6),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 18}, "config.frames, config.size: clips of 2 frames, 18×18 pixels do not divide"),
        ({"frames": 3}, "config.frames, config.size: clips of 3 frames"),
        ({"probes": {"one": ProbeConfig(task="clas")}}, "task is 'clas', which the clips have no labels of. Did you"),
        (
            {"probes": {"one": ProbeConfig(kind="attentive", heads=5)}},
            "config.probes.one.heads is 5, which does not divide the encoder's width, 16",
        ),
    ],
)
def test_what_cannot_work_is_found_out_first(evaluation, training_run, changes, message, monkeypatch):
    monkeypatch.setattr("jepa_jax.probing.features.extract", pytest.fail)
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluate(dataclasses.replace(evaluation, **changes), f"random:{training_run}")


@pytest.mark.parametrize(
    ("include", "message"),
    [("blue", "probes are trained on do not have"), ("green", "leaves none of")],
)
def test_test_classes_have_to_be_in_training(evaluation, training_run, include, message):
    """Training on one colour only: the test set has another, or no clip is left."""
    config = dataclasses.replace(evaluation, train=dataclasses.replace(evaluation.train, include=include))
    with pytest.raises(ConfigError, match=message):
        evaluate(config, f"random:{training_run}")


def test_a_single_class_is_an_error(evaluation, training_run):
    only = {name: dataclasses.replace(getattr(evaluation, name), include="blue") for name in ("train", "test")}
    with pytest.raises(ValueError, match="all training clips are of class 'blue'"):
        evaluate(dataclasses.replace(evaluation, **only), f"random:{training_run}")


def test_a_single_test_clip_is_an_error(evaluation, training_run):
    single = dataclasses.replace(evaluation, test=dataclasses.replace(evaluation.test, include="blue/0"))
    with pytest.raises(ValueError, match=r"the test set \(trained\) has one clip"):
        evaluate(single, f"random:{training_run}")


def test_out_has_to_be_a_file(evaluation, training_run, tmp_path):
    with pytest.raises(ConfigError, match=r"is a folder; name a file in it"):
        evaluate(evaluation, f"random:{training_run}", tmp_path)


def test_controls_and_measures_stand_beside_the_trained_encoder(training_run, tmp_path):
    controls = ("reversed", "shuffled", "one frame", "frame differences", "raw pixels")
    config = EvalConfig(
        train=SourceConfig(kind="sprites", split="train", clips=120),
        test=SourceConfig(kind="sprites", split="test", clips=40),
        probes={"ridge": ProbeConfig(kind="ridge", penalty=(1.0,))},
        controls=controls,
        representation=True,
        frames=8,
        batch_size=40,
    )
    found = job.evaluate(config, str(training_run), tmp_path / "results.json")
    rows = ["trained", "reversed", "untrained", *controls[1:], "appearance half", "dynamics half"]
    assert [(result.task, result.features) for result in found.results] == [
        (task, row) for task in ("appearance", "motion", "order") for row in rows
    ]
    measures = found.record["representation"]
    assert list(measures) == ["trained", "untrained"]
    assert measures["trained"] != measures["untrained"]
    assert all(1 <= values["rankme"] <= 17 for values in measures.values())
    lines = results.representation_table(measures).splitlines()
    assert lines[0].split()[:4] == ["without", "labels", "rankme", "lidar"]
    assert [line.split()[0] for line in lines[2:]] == ["trained", "untrained"]

    # Of the reversed clips the right answers are others, and of the others the same.
    by_row = {result.features: result for result in found.results if result.task == "order"}
    assert by_row["reversed"].items != by_row["trained"].items
    assert by_row["shuffled"].items == by_row["trained"].items


def test_all_folds_hold_out_every_item_once(evaluation, training_run):
    config = dataclasses.replace(
        with_probe(evaluation, kind="ridge", penalty=(0.1, 1.0)),
        test=SourceConfig(),
        fold_by=r"(\d)\.png",
        folds=5,
        controls=("first frame",),
    )
    trained, pixels = evaluate(config, f"random:{training_run}")
    assert (trained.features, pixels.features) == ("trained", "first frame")
    assert (trained.train, trained.test) == (16, 20)
    assert np.sum(trained.confusion) == 20
    assert pixels.accuracy == 1
    assert trained.items == pixels.items
    assert {setting["fold"] for setting in trained.validation} == set(range(5))
