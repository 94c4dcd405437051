"""Released weights and probes in an evaluation."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
import torch_files
from tiny_encoder import TILED, build

import jepa_jax
from jepa_jax import weights
from jepa_jax.config import ViewsConfig
from jepa_jax.evaluation import frozen_encoder, job, labelled_clips
from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.evaluation.features import extractor
from jepa_jax.evaluation.probes import released
from jepa_jax.evaluation.results import results_file
from jepa_jax.preprocessing import VJEPA2
from jepa_jax.settings import ConfigError
from jepa_jax.weights import WeightsError, references

WIDTH = 16
SCHEMA = pathlib.Path(results_file.__file__).with_name("schema.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights in the format of transformers, with V-JEPA 2's preprocessing."""
    folder = tmp_path_factory.mktemp("weights") / "x"
    jepa_jax.save(build(TILED, preprocessing=VJEPA2), folder)
    return folder


@pytest.fixture(scope="module")
def probe_file(tmp_path_factory):
    """A released probe of two classes."""
    path = tmp_path_factory.mktemp("probe") / "probe.pt"
    tensors = torch_files.numbers(torch_files.attentive_probe(WIDTH, 2))
    return torch_files.write_torch(path, {"classifiers": [tensors], "epoch": 20})


def test_weights_are_probed_and_recorded(evaluation, folder, tmp_path):
    probes = {"knn": ProbeConfig(kind="knn", neighbours=(3,))}
    config = dataclasses.replace(evaluation, probes=probes, beside_untrained=False)
    found = job.evaluate(config, str(folder), tmp_path / "results.json")
    assert [result.accuracy for result in found.results] == [1.0]
    record = json.loads((tmp_path / "results.json").read_text())
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    sha256 = references.sha256(folder)
    assert record["checkpoint"] == {"source": str(folder), "step": 0, "weights": "released", "file_sha256": sha256}
    assert record["training_settings"].keys() == {"clip", "encoder", "predictor", "dtype"}
    assert record["clip"] == {"frames": 4, "size": 16}
    keys = [json.loads(path.read_text())["key"] for path in (tmp_path / "features").glob("*/key.json")]
    assert {(key["encode"]["params"], tuple(key["clips"]["resize"])) for key in keys} == {(sha256, (18, 16))}


@pytest.mark.slow
def test_the_untrained_encoder_of_weights_has_their_shape(folder):
    frozen = frozen_encoder.load(str(folder))
    untrained = frozen_encoder.untrained(frozen.config)
    assert jax.tree.map(np.shape, untrained.params) == jax.tree.map(np.shape, frozen.params)
    one, other = (extractor.of_encoder(each, "float32") for each in (frozen, untrained))
    assert one.apply.encoder == other.apply.encoder


def test_a_released_probe_is_scored_as_it_is(evaluation, folder, probe_file, tmp_path):
    (tmp_path / "labels.txt").write_text("red\nBlue\n")  # in another order than the clips' classes
    probes = {"meta": ProbeConfig(released=str(probe_file), labels=str(tmp_path / "labels.txt"))}
    found = job.evaluate(dataclasses.replace(evaluation, probes=probes), str(folder), tmp_path / "results.json")
    (result,) = found.results
    assert (result.features, result.probe, result.class_names) == ("trained", "meta", ("blue", "red"))
    assert [path.name.partition("-")[0] for path in (tmp_path / "features").glob("*/")].count("all") == 1
    encode = extractor.of_encoder(frozen_encoder.load(str(folder)), "float32")
    opened = labelled_clips.open_clips(evaluation, frozen_encoder.load(str(folder)).config, 0, VJEPA2)
    (batch,) = opened.test.batches(12)
    tokens = jax.jit(lambda video: encode.apply(encode.params, video, jnp.arange(12))["all"])(batch["video"])
    probe = weights.read_probe(probe_file)
    logits = np.asarray(jax.jit(probe.module.apply)({"params": probe.params}, tokens))
    red = logits.argmax(-1) == 0
    np.testing.assert_array_equal(found.predictions[0].predicted_SxI[0], np.where(red, 1, 0))
    assert result.accuracy == np.mean(red == batch["labels"]["class"])
    assert result.chosen == {}


@pytest.mark.slow
def test_segments_are_read_together_and_crops_averaged(probe_file):
    config, views = ProbeConfig(released=str(probe_file)), ViewsConfig(clips=2, crops=3, frame_step=1)
    draw = np.random.default_rng(0)
    tokens = draw.standard_normal((4 * 6, 5, WIDTH)).astype(np.float16)
    rows_R = np.delete(np.arange(4 * 6), [7, 8])  # segment 0 of crops 1 and 2 of video 1 could not be decoded
    found = released.predict(config, tokens[rows_R], rows_R, views, np.array([1, 0]))
    probe = weights.read_probe(probe_file)
    score = jax.jit(lambda x: jax.nn.softmax(probe.module.apply({"params": probe.params}, x)))
    for video in range(4):
        crops = []
        for crop in range(3):
            rows = [row for row in (6 * video + crop, 6 * video + 3 + crop) if row in rows_R]
            crops.append(score(tokens[rows].reshape(1, -1, WIDTH).astype(np.float32))[0, ::-1])
        expected = np.mean(crops, axis=0)
        assert found.predicted_1xI[0, video] == expected.argmax()
        np.testing.assert_allclose(found.probability_1xI[0, video], expected.max(), atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ("order", ("b", "a"), [0, 1]),
        ("", ("1", "00"), [1, 0]),
        ('{"Holding [something]": "1", "Pushing it": 0}', ("holding something", "pushing it"), [1, 0]),
        ('["x", "y"]', ("y", "x"), [1, 0]),
    ],
)
def test_classes_are_numbered_as_the_probe_has_them(probe_file, tmp_path, labels, classes, numbers):
    if labels.startswith(("{", "[")):
        (tmp_path / "labels.json").write_text(labels)
        labels = str(tmp_path / "labels.json")
    config = ProbeConfig(released=str(probe_file), labels=labels)
    assert released.class_numbers("meta", config, classes).tolist() == numbers


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ("", ("blue", "red"), r"config\.probes\.meta\.labels is empty, and .* has no names of its 2 classes"),
        ("order", ("a", "b", "c"), "the probe has 2 classes and 3 names; the clips have 3 classes"),
        ("x\ny", ("x", "z"), "such as 'z', which it lacks"),
        ("nowhere.txt", ("x", "y"), r"nowhere\.txt has no names of classes"),
        ("{", ("x", "y"), "has no names of classes"),
    ],
)
def test_classes_that_do_not_fit_are_errors(probe_file, tmp_path, labels, classes, message):
    if labels in ("x\ny", "{"):
        file = tmp_path / ("labels.json" if labels == "{" else "labels.txt")
        file.write_text(labels)
        labels = str(file)
    with pytest.raises(ConfigError, match=message):
        released.class_numbers("meta", ProbeConfig(released=str(probe_file), labels=labels), classes)


def test_probes_that_do_not_fit_are_errors_before_anything_is_decoded(evaluation, folder, tmp_path):
    wide = torch_files.numbers(torch_files.attentive_probe(32, 2))
    path = torch_files.write_torch(tmp_path / "wide.pt", {"classifiers": [wide]})
    for file, error, message in (
        (path, ConfigError, "reads features of width 32; those of the encoder have 16"),
        (folder, ConfigError, "has no classifier"),
        (tmp_path, ConfigError, "is not a probe"),
        (tmp_path / "none.pt", FileNotFoundError, r"none\.pt"),
    ):
        config = dataclasses.replace(evaluation, probes={"meta": ProbeConfig(released=str(file), labels="order")})
        with pytest.raises(error, match=message):
            job.evaluate(config, str(folder), cache=tmp_path / "features")
    assert not (tmp_path / "features").exists()
    config = dataclasses.replace(evaluation, representation=True, beside_untrained=False)
    with pytest.raises(ConfigError, match="needs the masks of a training run"):
        job.evaluate(config, str(folder), cache=tmp_path / "features")
    (folder.parent / "damaged.pt").write_bytes(b"PK")
    with pytest.raises(WeightsError, match=r"damaged\.pt is truncated or damaged"):
        job.evaluate(config, str(folder.parent / "damaged.pt"))


def test_settings_of_released_probes():
    probe = ProbeConfig(released="probe.pt")
    assert (probe.kind, probe.tokens, probe.attends) == ("released", "all", True)
    with pytest.raises(ValueError, match="released is empty; name the probe's file"):
        ProbeConfig(kind="released")
    with pytest.raises(ValueError, match="only released probes have labels"):
        ProbeConfig(labels="order")
