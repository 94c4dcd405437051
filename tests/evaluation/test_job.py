import csv
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil

import jsonschema
import mock_store
import numpy as np
import pytest

from jepa_jax.config import SourceConfig
from jepa_jax.data import sources
from jepa_jax.evaluation import job
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.evaluation.probes import fitting
from jepa_jax.evaluation.results import probe_result, results_file, table
from jepa_jax.files import ownership
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, to_dict


def evaluate(*arguments):
    return job.evaluate(*arguments).results


def with_probe(evaluation, **settings):
    return dataclasses.replace(evaluation, probes={"one": ProbeConfig(**settings)})


def test_evaluation_end_to_end(evaluation, training_run, tmp_path):
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
    check_schema(record)
    assert sorted(path.name for path in out.parent.iterdir()) == ["features", "predictions.csv", "results.json"]


def check_schema(record):
    jsonschema.validate(record, json.loads((pathlib.Path(probe_result.__file__).parent / "schema.json").read_text()))


def test_evaluation_on_clips_that_are_not_square(evaluation, training_run, tmp_path):
    config = dataclasses.replace(with_probe(evaluation, kind="knn"), size=(16, 24))
    found = evaluate(config, f"random:{training_run}", tmp_path / "results.json")
    assert found[0].accuracy == 1
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["clip"] == {"frames": 2, "size": [16, 24]}
    check_schema(record)


def test_predictions_file_lists_every_clip(evaluation, training_run, tmp_path):
    fitting = {
        "linear": ProbeConfig(epochs=1, seeds=2),
        "ridge": ProbeConfig(kind="ridge"),
        "knn": ProbeConfig(kind="knn"),
    }
    config = dataclasses.replace(evaluation, probes=fitting)
    found = evaluate(config, str(training_run), tmp_path / "colours.json")
    with (tmp_path / "colours.predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for result in found:
        own = [row for row in rows if (row["probe"], row["features"]) == (result.probe, result.features)]
        for seed, accuracy in enumerate(result.accuracies):
            of_seed = [row for row in own if row["seed"] == str(seed)]
            names = [f"{name}/{i}.png" for name in ("blue", "red") for i in range(6)]
            assert [row["clip"] for row in of_seed] == names
            assert [row["label"] for row in of_seed] == [name.split("/")[0] for name in names]
            assert [row["correct"] == "1" for row in of_seed] == [row["label"] == row["predicted"] for row in of_seed]
            assert np.mean([row["correct"] == "1" for row in of_seed]) == pytest.approx(accuracy)
            for row in of_seed:  # the predicted one of two classes has a probability of at least 0.5
                assert row["probability"] == "" if result.probe == "ridge" else 0.5 <= float(row["probability"]) <= 1
        assert len(own) == 12 * len(result.accuracies)
    assert len(rows) == 2 * 12 * (2 + 1 + 1)


@pytest.mark.slow
def test_clips_are_decoded_once_for_all_encoders_controls_and_measures(evaluation, training_run, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(sources.Source, "read_image", counted(sources.Source.read_image, read))
    alone = with_probe(dataclasses.replace(evaluation, beside_untrained=False), kind="ridge")
    evaluate(alone, str(training_run), tmp_path / "alone" / "results.json")
    once = len(read)
    controls = ("raw pixels", "one frame", "shuffled")
    config = dataclasses.replace(alone, controls=controls, representation=True, beside_untrained=True)
    found = evaluate(config, str(training_run), tmp_path / "results.json")
    assert {"trained", "untrained", *controls} <= {result.features for result in found}
    assert len(read) == 2 * once


def counted(function, calls):
    @functools.wraps(function)
    def wrapper(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize("kind", ["images", "sprites"])
def test_clips_in_both_training_and_test_set_raise(evaluation, training_run, pictures, kind):
    if kind == "images":
        train = SourceConfig(kind="images", path=str(pictures / "train"))
        test = SourceConfig(kind="images", path=f"{pictures}/./train", include="blue/|red/[12]")
        shared = f"12 clips, such as {pictures}/train/blue/0.png"
    else:
        train, test = (SourceConfig(kind="sprites", clips=count) for count in (20, 5))
        shared = "5 clips, such as sprites-3/easy/train/0/0"
    with pytest.raises(ConfigError, match=re.escape(f"config.train and config.test share {shared}: a probe must not")):
        evaluate(dataclasses.replace(evaluation, train=train, test=test), f"random:{training_run}")


def test_evaluation_is_reproducible(evaluation, training_run, tmp_path):
    config, out = with_probe(evaluation, epochs=1), tmp_path / "results.json"
    runs = []
    for _ in range(2):
        evaluate(config, f"{training_run}:3", out)
        record = json.loads(out.read_text())
        assert (record["checkpoint"]["step"], record["checkpoint"]["weights"]) == (3, "ema")
        runs.append([{k: v for k, v in result.items() if k != "seconds"} for result in record["results"]])
    assert runs[0] == runs[1]


def test_untrained_encoder_is_evaluated_beside_the_trained_one(evaluation, training_run):
    config = with_probe(evaluation, epochs=1)
    ((trained, beside), (alone,)) = (evaluate(config, f"{prefix}{training_run}") for prefix in ("", "random:"))
    assert (trained.features, beside.features, alone.features) == ("trained", "untrained", "trained")
    assert (beside.correct, beside.items) == (alone.correct, alone.items)
    (without,) = evaluate(dataclasses.replace(config, beside_untrained=False), str(training_run))
    assert (without.features, without.correct) == ("trained", trained.correct)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_features_over_the_memory_limit_are_read_from_disk(evaluation, training_run, monkeypatch, limit):
    config = with_probe(evaluation, kind="attentive", tokens="all", heads=2, epochs=1)
    seen = []

    def spy(probe, train, train_labels, tests, *_, **__):
        seen.append((type(train), type(tests["trained"])))
        predicted = np.zeros((1, len(tests["trained"])), np.int32)
        return fitting.Predictions({"trained": predicted}, {"trained": None}, {})

    monkeypatch.setattr("jepa_jax.evaluation.probes.fitting.run", spy)
    evaluate(dataclasses.replace(config, memory_limit=limit), f"random:{training_run}")
    assert seen == [(np.ndarray, np.ndarray) if limit else (np.memmap, np.memmap)]


def test_holdout_takes_the_test_set_from_the_training_path(evaluation, training_run):
    config = dataclasses.replace(with_probe(evaluation, kind="knn"), test=SourceConfig(), holdout=r"[789]\.png")
    (result,) = evaluate(config, f"random:{training_run}")
    assert (result.train, result.test) == (14, 6)


def test_sprites_have_three_tasks(training_run):
    config = EvalConfig(
        train=SourceConfig(kind="sprites", split="train", clips=200),
        test=SourceConfig(kind="sprites", split="test", clips=40),
        probes={"linear": ProbeConfig(epochs=1), "motion_knn": ProbeConfig(kind="knn", task="motion")},
        frames=4,
        batch_size=40,
    )
    found = evaluate(config, f"random:{training_run}")
    assert [(result.task, result.probe, len(result.class_names)) for result in found] == [
        ("appearance", "linear", 8),
        ("motion", "linear", 8),
        ("motion", "motion_knn", 8),
        ("order", "linear", 6),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 18}, "config.frames, config.size: clips of 2 frames, 18×18 pixels do not divide"),
        ({"frames": 3}, "config.frames, config.size: clips of 3 frames"),
        ({"probes": {"one": ProbeConfig(task="clas")}}, "task is 'clas', for which the clips have no labels. Did you"),
        (
            {"probes": {"one": ProbeConfig(kind="attentive", heads=5)}},
            "config.probes.one.heads is 5, which does not divide the width of its tokens, 16",
        ),
    ],
)
def test_invalid_settings_raise_before_extraction(evaluation, training_run, changes, message, monkeypatch):
    monkeypatch.setattr("jepa_jax.evaluation.features.feature_set.extract", pytest.fail)
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluate(dataclasses.replace(evaluation, **changes), f"random:{training_run}")


@pytest.mark.parametrize(
    ("include", "message"),
    [("blue", "is not in the probes' training set"), ("green", "leaves none of")],
)
def test_test_classes_missing_from_training_raise(evaluation, training_run, include, message):
    """Training has only one colour: the test set has another, or no training clip is left."""
    config = dataclasses.replace(evaluation, train=dataclasses.replace(evaluation.train, include=include))
    with pytest.raises(ConfigError, match=message):
        evaluate(config, f"random:{training_run}")


def test_probes_read_levels(evaluation, training_run):
    """The encoder has one level, which is also the last."""
    probes_of = {"last": "all", "first": "level 1", "stacked": "stacked levels", "wide": "levels"}
    attentive = {"kind": "attentive", "heads": 2, "epochs": 2}
    config = dataclasses.replace(
        evaluation, probes={name: ProbeConfig(tokens=tokens, **attentive) for name, tokens in probes_of.items()}
    )
    found = evaluate(config, f"random:{training_run}")
    assert [result.probe for result in found] == list(probes_of)
    assert len({result.correct for result in found}) == 1
    with pytest.raises(
        ConfigError, match=r"config\.probes\.one\.tokens is 'all level 2'; the encoder has levels 1 to 1"
    ):
        evaluate(with_probe(evaluation, tokens="level 2", **attentive), f"random:{training_run}")


def test_holdout_that_matches_no_or_all_files_raises(evaluation, training_run):
    clips = dataclasses.replace(evaluation.train, include="")
    for pattern in ("nothing", "."):
        config = dataclasses.replace(evaluation, train=clips, test=SourceConfig(), holdout=pattern)
        with pytest.raises(ConfigError, match=rf"^config\.holdout: '{re.escape(pattern)}' leaves none of \d+ files"):
            evaluate(config, f"random:{training_run}")
    both = dataclasses.replace(config, train=dataclasses.replace(clips, include="("), holdout="blue")
    with pytest.raises(ConfigError, match=r"^config\.train\.include: '\(' is not a regular expression"):
        evaluate(both, f"random:{training_run}")


def test_single_class_raises(evaluation, training_run):
    only = {name: dataclasses.replace(getattr(evaluation, name), include="blue") for name in ("train", "test")}
    with pytest.raises(ValueError, match="all training clips are of class 'blue'"):
        evaluate(dataclasses.replace(evaluation, **only), f"random:{training_run}")


def test_single_test_clip_raises(evaluation, training_run):
    single = dataclasses.replace(evaluation, test=dataclasses.replace(evaluation.test, include="blue/0"))
    with pytest.raises(ValueError, match=r"the test set \(trained\) has one clip"):
        evaluate(single, f"random:{training_run}")


def test_folder_as_out_raises(evaluation, training_run, tmp_path):
    with pytest.raises(ConfigError, match=r"is a folder; name a file in it"):
        evaluate(evaluation, f"random:{training_run}", tmp_path)


def test_second_evaluation_with_the_same_out_raises(evaluation, training_run, tmp_path, monkeypatch):
    out, run, refused = tmp_path / "results.json", job.evaluate_encoder, []

    def second(*arguments):
        with pytest.raises(ownership.HeldError) as error:
            job.evaluate(evaluation, f"random:{training_run}", out)
        refused.append(str(error.value))
        return run(*arguments)

    monkeypatch.setattr(job, "evaluate_encoder", second)
    job.evaluate(with_probe(evaluation, kind="knn"), str(training_run), out)
    assert f"--out={out} is in use by process {os.getpid()} on" in refused[0]
    assert "name another --out" in refused[0]
    assert json.loads(out.read_text())["checkpoint"]["weights"] == "ema"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "predictions.csv", "results.json"]


def test_results_can_be_written_to_a_bucket(evaluation, training_run, tmp_path, monkeypatch):
    """Features are memory-mapped, so they stay on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ownership, "SETTLE_S", 0.05)
    settings = with_probe(evaluation, kind="knn")
    with mock_store.mounted(tmp_path / "bucket", monkeypatch) as bucket:
        found = job.evaluate(settings, str(training_run), "gs://bucket/new/results.json")
        assert results_file.read("gs://bucket/new/results.json")["results"] == found.results
        written = sorted(str(path.relative_to(bucket)) for path in bucket.rglob("*.*"))
        assert written == ["new/predictions.csv", "new/results.json"]
        job.evaluate(settings, str(training_run), "gs://bucket/results.json", tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir())
        with pytest.raises(ConfigError, match="--cache is gs://bucket/cache; expected a path on this machine"):
            job.evaluate(settings, str(training_run), "gs://bucket/results.json", "gs://bucket/cache")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bucket", "cache"]


@pytest.mark.slow
def test_results_include_controls_and_representation_measures(training_run, tmp_path):
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
    lines = table.representation_table(measures).splitlines()
    assert lines[0].split()[:4] == ["without", "labels", "rankme", "lidar"]
    assert [line.split()[0] for line in lines[2:]] == ["trained", "untrained"]

    # Reversed clips have other correct answers, shuffled clips the same.
    by_row = {result.features: result for result in found.results if result.task == "order"}
    assert by_row["reversed"].items != by_row["trained"].items
    assert by_row["shuffled"].items == by_row["trained"].items


@pytest.mark.slow
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


def test_classes_and_files_may_have_any_name(evaluation, training_run, pictures, tmp_path):
    """Names with line breaks or invalid UTF-8. Folders with a broken link, a pipe and a link to themselves."""
    renamed = {"blue": os.fsdecode(b"bl\xe9u"), "red": "r\u2028d\n"}
    for part in ("train", "test"):
        for name, odd in renamed.items():
            folder = shutil.copytree(pictures / part / name, tmp_path / part / odd)
            (folder / "0.png").rename(folder / os.fsdecode(b"-\xff:\n0.png"))
        folder = tmp_path / part / renamed["red"]
        (folder / "gone.png").symlink_to("nowhere \udcff")
        (folder / "self").symlink_to(".")
        os.mkfifo(folder / "pipe.png")
    train, test = (SourceConfig(kind="images", path=str(tmp_path / part)) for part in ("train", "test"))
    config = dataclasses.replace(
        with_probe(evaluation, kind="ridge"), train=train, test=test, max_skip_fraction=0.5, beside_untrained=False
    )
    out = tmp_path / "results.json"
    (found,) = evaluate(config, f"random:{training_run}", out)
    assert found.class_names == tuple(renamed.values())
    assert (found.train, found.test, found.accuracy) == (20, 12, 1)
    record = results_file.read(out)
    assert record["results"] == [found]
    skipped = [os.path.basename(path) for path in record["skipped"]["test"]]
    assert skipped == ["gone.png", "pipe.png"]
    assert evaluate(config, f"random:{training_run}")[0].accuracy == 1  # from the cache, whose key includes the names


def test_large_integer_labels_are_supported(evaluation, training_run, pictures, tmp_path):
    for part in ("train", "test"):
        lines = [
            f'"{file}" {label}\n'
            for name, label in (("blue", 20240131), ("red", 4294967296))
            for file in sorted((pictures / part / name).iterdir())
        ]
        (tmp_path / f"{part}.csv").write_text("".join(lines))
    train, test = (SourceConfig(kind="images", path=str(tmp_path / f"{part}.csv")) for part in ("train", "test"))
    config = dataclasses.replace(with_probe(evaluation, kind="ridge"), train=train, test=test, beside_untrained=False)
    (found,) = evaluate(config, f"random:{training_run}")
    assert found.class_names == ("20240131", "4294967296")
    assert (found.accuracy, found.chance) == (1, 0.5)


def test_groups_match_the_training_clips_of_each_fold(evaluation, training_run, monkeypatch):
    """In every fold, the probe receives the groups of its training clips."""
    seen = []

    def spy(probe, train, train_labels, tests, *_, groups, **__):
        seen.append(groups)
        return fitting.Predictions(
            {"trained": np.zeros((1, len(tests["trained"])), np.int32)}, {"trained": None}, {}, converged=False
        )

    monkeypatch.setattr("jepa_jax.evaluation.probes.fitting.run", spy)
    config = with_probe(evaluation, kind="ridge")
    evaluate(dataclasses.replace(config, groups=r"(\d)\.png"), f"random:{training_run}")
    assert seen.pop().tolist() == [*range(10), *range(10)]
    folds = dataclasses.replace(config, test=SourceConfig(), fold_by=r"(\d)\.png", folds=5)
    (result,) = evaluate(folds, f"random:{training_run}")
    assert [groups.tolist() for groups in seen[:2]] == [[1, 2, 3, 4, 6, 7, 8, 9] * 2, [0, 2, 3, 4, 5, 7, 8, 9] * 2]
    assert result.converged is False
    evaluate(config, f"random:{training_run}")
    assert seen.pop() is None
