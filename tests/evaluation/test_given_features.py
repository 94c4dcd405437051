"""`--features DIR`: arrays that any program wrote are probed as those of an encoder are."""

import csv
import dataclasses
import json
import pathlib

import jsonschema
import numpy as np
import pytest
from etils import epath

from jepa_jax.config import ClipConfig, SourceConfig, ViewsConfig
from jepa_jax.evaluation import frozen_encoder, given_features, job
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.evaluation.features import export
from jepa_jax.evaluation.results import clip_predictions, compare, results_file
from jepa_jax.settings import ConfigError

SCHEMA = pathlib.Path(results_file.__file__).with_name("schema.json")
KNN = {"knn": ProbeConfig(kind="knn", neighbours=(3,))}
CONFIG = EvalConfig(probes=KNN)


def write(folder, clips, splits=None, labels=None, **arrays):
    """Features of clips A/0, A/1, …; B/0, …, which are labelled by their letter."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{letter}/{number}" for letter in "AB" for number in clips]
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "label", *(["split"] if splits else [])])
        for row, name in enumerate(names):
            label = name[0] if labels is None else labels[row]
            writer.writerow([name, label, *([splits[row]] if splits else [])])
    draw = np.random.default_rng(len(names))
    side = np.array([1.0 if name[0] == "A" else -1.0 for name in names])[:, None]
    mean = (side + 0.1 * draw.standard_normal((len(names), 4))).astype(np.float32)
    for name, array in (arrays or {"mean": mean}).items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.slow
def test_an_export_gives_the_results_of_its_encoder(evaluation, pictures, training_run, tmp_path):
    config = dataclasses.replace(evaluation, probes=KNN, beside_untrained=False)
    job.evaluate(config, f"{training_run}:3", tmp_path / "of_encoder.json")
    encoder = frozen_encoder.load(f"{training_run}:3")
    for split in ("train", "test"):
        export.write(
            encoder,
            SourceConfig(kind="images", path=str(pictures / split)),
            tmp_path / "features" / split,
            tokens=["mean"],
            levels=["last"],
            clip=ClipConfig(frames=2, size=16),
            views=ViewsConfig(),
            dtype="float32",
            batch_size=8,
        )
    given_features.evaluate(config, tmp_path / "features", tmp_path / "given.json")
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("of_encoder.json", "given.json"))
    jsonschema.validate(other, json.loads(SCHEMA.read_text()))
    for name in ("accuracy", "correct", "items", "class_names", "features"):
        assert one["results"][0][name] == other["results"][0][name], name
    assert other["checkpoint"] == {"source": str(tmp_path / "features"), "step": 3, "weights": "features"}
    assert other["clip"] == {"frames": 2, "size": 16}
    shown = compare.compare([tmp_path / "of_encoder.json", tmp_path / "given.json"])
    assert "class  knn    trained" in shown
    assert clip_predictions.path_beside(epath.Path(tmp_path / "given.json")).exists()


@pytest.mark.parametrize(
    "settings", [{"holdout": "[89]$"}, {"fold_by": r"(\d)$", "folds": 5}, {}], ids=["holdout", "folds", "column"]
)
def test_clips_are_split_by_the_config_or_a_column(tmp_path, settings):
    splits = None if settings else (["train"] * 8 + ["test"] * 2) * 2
    folder = write(tmp_path / "x", range(10), splits)
    (result,) = given_features.evaluate(dataclasses.replace(CONFIG, **settings), folder).results
    assert result.accuracy == 1
    assert (result.train, result.test) == ((16, 20) if "fold_by" in settings else (16, 4))


def test_probes_without_their_array_are_left_out(tmp_path, capsys):
    write(tmp_path / "x" / "train", range(8))
    write(tmp_path / "x" / "test", range(8, 10))
    probes = KNN | {"attentive": ProbeConfig(kind="attentive", tokens="all")}
    found = given_features.evaluate(dataclasses.replace(CONFIG, probes=probes), tmp_path / "x")
    assert [result.probe for result in found.results] == ["knn"]
    assert found.record["clip"] is None
    assert "Probe attentive is left out" in capsys.readouterr().err


TOKENS = np.random.default_rng(0).standard_normal((20, 3, 6))
HOLDOUT = {"holdout": "[89]$"}


@pytest.mark.parametrize(
    ("written", "settings", "message"),
    [
        ({}, {}, "which clips of .* are test clips is not known: clips.csv has the split ''"),
        ({"splits": ["train"] * 19 + ["valid"]}, {}, "has the split 'valid'"),
        ({"splits": ["train"] * 20}, {}, "has no test clips"),
        ({"labels": ["a"] * 19 + [""]}, HOLDOUT, r"1 clips have no label, such as B/9"),
        ({"all": TOKENS}, HOLDOUT, r"the probes read mean\.npy; .* has all\.npy"),
        ({"mean": TOKENS}, HOLDOUT, r"mean\.npy is float64 \[20, 3, 6\]; expected floats \[clips, channels\]"),
        ({"mean": TOKENS[:19, 0]}, HOLDOUT, r"\[19, 6\]; expected .* a row for each of the 20 lines of clips\.csv"),
        ({"mean": np.zeros((20, 3), int)}, HOLDOUT, r"mean\.npy is int64"),
        ({"mean": np.array([None] * 20)}, HOLDOUT, "is not a NumPy array of numbers"),
        ({}, {"holdout": "["}, "is not a regular expression"),
        ({}, {"velocity": True}, r"config\.velocity needs an encoder"),
    ],
)
def test_folders_that_cannot_be_used_are_errors(tmp_path, written, settings, message):
    folder = write(tmp_path / "x", range(10), **written)
    with pytest.raises(ConfigError, match=message):
        given_features.evaluate(dataclasses.replace(CONFIG, **settings), folder)


def test_missing_tables_and_numbers_that_are_not_finite_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"has no clips\.csv; expected arrays"):
        given_features.evaluate(CONFIG, tmp_path / "empty")
    (tmp_path / "empty" / "clips.csv").write_text("name,label\n")
    with pytest.raises(ConfigError, match=r"has no column clip; expected clip, label"):
        given_features.evaluate(CONFIG, tmp_path / "empty")
    for split in ("train", "test"):
        write(tmp_path / "both" / split, range(3))
    with pytest.raises(ConfigError, match=r"leave config\.fold_by and config\.holdout empty"):
        given_features.evaluate(dataclasses.replace(CONFIG, **HOLDOUT), tmp_path / "both")
    mean = TOKENS[:, 0].copy()
    mean[13, 2] = np.nan
    folder = write(tmp_path / "nan", range(10), mean=mean)
    with pytest.raises(FloatingPointError, match=r"mean\.npy: row 13 is not finite"):
        given_features.evaluate(dataclasses.replace(CONFIG, **HOLDOUT), folder)
