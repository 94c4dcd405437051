"""Fine-tuning: frozen blocks, exact resume, results beside frozen probes, and errors."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import chex
import jax
import jsonschema
import numpy as np
import pytest
import tiny_run
from PIL import Image
from waiting import wait_until

from jepa_jax import config_files, data
from jepa_jax.checkpoints import initial_weights, manager, reader
from jepa_jax.config import Config, SourceConfig
from jepa_jax.evaluation import job as evaluation_job
from jepa_jax.evaluation.eval_config import EvalConfig, logistic_probe
from jepa_jax.evaluation.results import compare, results_file
from jepa_jax.finetune import classification, finetune_job, labelled_sources
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import loop
from jepa_jax.training.setup import build_setup, init_state

REPOSITORY = pathlib.Path(__file__).parents[2]
SCHEMA = REPOSITORY / "jepa_jax" / "evaluation" / "results" / "schema.json"
PRETRAINED = parse(Config, tiny_run.SETTINGS | {"encoder": {"size": "16x3x1", "patch": 8, "levels": 2}})


def write_run(folder, config):
    """Makes a training run with a checkpoint of step 4, whose encoder is random. Nothing is compiled."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        scale = path[-1].key == "scale" if hasattr(path[-1], "key") else False
        values = np.ones(leaf.shape) if scale else 0.02 * rng.normal(size=leaf.shape)
        return jax.device_put(values.astype(leaf.dtype))

    workdir.open_workdir(folder, config)
    shapes = jax.eval_shape(lambda: init_state(build_setup(config), 1))
    with manager.Checkpointer(folder, keep=1) as checkpointer:
        checkpointer.save(4, jax.tree_util.tree_map_with_path(draw, shapes))
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("pretrained") / "run", PRETRAINED)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """{train,test}/{blue,red}/0…9.png."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part in ("train", "test"):
        for name, colour in {"blue": (60, 60, 160), "red": (160, 60, 60)}.items():
            (folder / part / name).mkdir(parents=True)
            for number in range(10):
                noise = rng.integers(-20, 20, size=(20, 24, 3))
                Image.fromarray(np.uint8(np.array(colour) + noise)).save(folder / part / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def settings(pretrained, pictures):
    """Settings of a minimal run."""
    return {
        "init": f"{pretrained}:4",
        "steps": 6,
        "batch_size": 8,
        "dtype": "float32",
        "clip": {"frames": 4, "size": 16},
        "optim": {"start_lr": 0.0, "peak_lr": 0.01, "final_lr": 0.0, "warmup_steps": 2, "weight_decay": 0.05},
        "freeze_blocks": 2,
        "data": {"sources": {"images": {"kind": "images", "path": str(pictures / "train")}}, "workers": 0},
        "test": {"kind": "images", "path": str(pictures / "test")},
        "checkpoint": {"every": 2, "keep": 10},
        "log": {"every": 1},
    }


def parsed(settings, **changes):
    return parse(FinetuneConfig, settings | changes)


def params(folder, step=None):
    return reader.load_group(reader.choose(folder, step)[1], "params")


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert finetune_job.finetune(parsed(settings), folder) == loop.Outcome(step=6)
    return folder


@pytest.mark.slow
def test_run_learns_and_leaves_frozen_blocks_as_they_are(whole, pretrained):
    before, after = reader.read_encoder(pretrained).params, params(whole)["encoder"]
    chex.assert_trees_all_equal(params(whole, 0)["encoder"], before)
    frozen = ("patch_embedding", "image_patch_embedding", "video_modality", "image_modality", "groups_0")
    for part in frozen:  # groups_0 is block 1
        chex.assert_trees_all_equal(after[part], before[part])
    for old, new in zip(*(jax.tree.leaves(x["groups_1"]) for x in (before, after)), strict=True):
        np.testing.assert_array_equal(old[0], new[0])  # block 2
        assert (old[1] != new[1]).any()
    records = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[1]["learning_rate"] == pytest.approx(0.01)
    assert records[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)
    assert all(0 <= record["accuracy"] <= 1 for record in records)


@pytest.mark.slow
def test_results_follow_the_schema_and_are_compared_with_a_frozen_probe(whole, settings, pretrained, tmp_path):
    record = json.loads((whole / "results.json").read_text())
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    (result,) = results_file.read(whole / "results.json")["results"]
    assert (result.task, result.probe, result.train, result.test) == ("class", "linear", 20, 20)
    assert record["checkpoint"]["step"] == 6
    lines = (whole / "predictions.csv").read_text().splitlines()
    assert len(lines) == 21
    assert sum(line.split(",")[-2] == "1" for line in lines[1:]) == round(20 * result.accuracy)
    config = parsed(settings)
    frozen = EvalConfig(
        train=config.data.sources["images"],
        test=config.test,
        probes={"linear": logistic_probe()},
        beside_untrained=False,
        workers=0,
    )
    evaluation_job.evaluate(frozen, str(pretrained), tmp_path / "frozen.json")
    text = compare.compare([tmp_path / "frozen.json", whole / "results.json"])
    assert "class  linear  trained" in text
    assert "not the same probe settings" in text
    assert "not the same test items" not in text


@pytest.mark.slow
def test_run_stopped_by_sigterm_resumes_bit_for_bit_without_its_initial_weights(
    whole, settings, pretrained, tmp_path, monkeypatch
):
    source = tmp_path / "source"
    shutil.copytree(pretrained, source)
    config = parsed(settings, init=str(source))
    take, taken = data.TrainBatches.__next__, []

    def interrupted(batches):
        taken.append(1)
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(batches)

    with monkeypatch.context() as patch:
        patch.setattr(data.TrainBatches, "__next__", interrupted)
        assert finetune_job.finetune(config, tmp_path / "run").stopped_by == "SIGTERM"
    assert not (tmp_path / "run" / "results.json").exists()
    shutil.rmtree(source)
    assert finetune_job.finetune(config, tmp_path / "run") == loop.Outcome(step=6)
    chex.assert_trees_all_equal(params(tmp_path / "run"), params(whole))
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"config\.init: '.*' → 'elsewhere'"):
        finetune_job.finetune(dataclasses.replace(config, init="elsewhere"), tmp_path / "run")


RUN = """
import os, sys, json
from absl import flags
flags.FLAGS.mark_as_parsed()
from jepa_jax.finetune import finetune_job
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.settings import parse
finetune_job.finetune(parse(FinetuneConfig, json.loads(sys.argv[1])), sys.argv[2])
"""


@pytest.mark.slow
def test_run_killed_resumes_bit_for_bit(whole, settings, tmp_path):
    folder, file = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    long = settings | {"checkpoint": {"every": 2, "keep": 100}, "steps": 6}
    command = [sys.executable, "-c", RUN, json.dumps(long), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") >= 1, process)
    process.kill()
    process.communicate()
    assert not (folder / "results.json").exists()
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    chex.assert_trees_all_equal(params(folder), params(whole))


@pytest.mark.slow
def test_attentive_head_in_parts_of_the_batch_agrees_with_the_whole_batch(settings):
    """Gradients of two microbatches have the mean of the gradients; images are classified by their labels."""
    config = parsed(settings, head={"kind": "attentive", "heads": 2})
    opened = labelled_sources.open_sources(config)
    classifier = finetune_job._classifier(config, PRETRAINED.encoder, opened)
    state = jax.jit(lambda: classification.init_state(classifier, 0))()
    clips = jax.random.normal(jax.random.key(0), (8, 4, 16, 16, 3))
    label_B = np.arange(8) % 2
    halves = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=2))
    whole, parts = (
        jax.jit(functools.partial(classification.gradients, dataclasses.replace(classifier, config=each)))(
            state.params, clips, label_B
        )
        for each in (config, halves)
    )
    chex.assert_trees_all_close(whole, parts, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_fine_tuning_learns_appearance_beyond_the_frozen_linear_probe(tmp_path):
    """Of a random encoder on sprites; the 95 % interval of the paired difference is above 0."""
    encoder = dataclasses.replace(PRETRAINED.encoder, size="64x3x2")
    pretrained = write_run(tmp_path / "pretrained", dataclasses.replace(PRETRAINED, encoder=encoder))
    sprites = SourceConfig(kind="sprites", clips=2048)
    test = SourceConfig(kind="sprites", split="test", clips=512)
    settings = {
        "init": str(pretrained),
        "steps": 500,
        "batch_size": 32,
        "dtype": "float32",
        "clip": {"frames": 4, "size": 32},
        "optim": {"start_lr": 0.0, "peak_lr": 2e-3, "final_lr": 0.0, "warmup_steps": 40, "weight_decay": 0.01},
        "task": "appearance",
        "layer_decay": 0.9,
        "label_smoothing": 0.0,
        "checkpoint": {"every": 500},
    }
    config = dataclasses.replace(parse(FinetuneConfig, settings), data=data_of(sprites), test=test)
    finetune_job.finetune(config, tmp_path / "run")
    probes = {"linear": logistic_probe(3)}
    frozen = EvalConfig(train=sprites, test=test, frames=4, size=32, probes=probes, beside_untrained=False)
    evaluation_job.evaluate(frozen, str(pretrained), tmp_path / "frozen.json")
    text = compare.compare([tmp_path / "frozen.json", tmp_path / "run" / "results.json"])
    (row,) = [line for line in text.splitlines() if line.startswith("appearance")]
    assert "~" not in row
    assert "  +" in row


def data_of(source):
    return dataclasses.replace(FinetuneConfig().data, sources={"sprites": source}, workers=0)


def test_settings_that_cannot_be_used_raise(settings, pictures, tmp_path):
    for changes, message in (
        ({"init": ""}, r"config\.init is empty; name the encoder to fine-tune"),
        ({"init": "nowhere"}, r"config\.init is nowhere: .*nowhere does not exist"),
        ({"task": "motion"}, r"config\.task is 'motion', for which the clips have no labels"),
        ({"freeze_blocks": 4}, r"config\.freeze_blocks is 4; the encoder has 3 blocks"),
        ({"head": {"kind": "attentive", "heads": 3}}, r"config\.head\.heads is 3, .* width, 16"),
        ({"clip": {"frames": 4, "size": 20}}, r"config\.clip: clips of 4 frames, 20×20 pixels do not divide"),
        (
            {"test": {"kind": "images", "path": str(pictures / "train")}},
            r"config\.data\.sources\.images and config\.test",
        ),
        (
            {"data": {"sources": {"a": {"kind": "images", "path": "/nowhere"}}}},
            r"config\.data\.sources\.a\.path: /nowhere does not exist [^T]*$",
        ),
        ({"data": {"sources": {}}}, r"config\.data\.sources: 0 sources have a weight above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            finetune_job.finetune(parsed(settings, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_decay": 0.0}, r"layer_decay is 0; expected above 0"),
        ({"layer_decay": 1.5}, r"layer_decay is 1\.5; expected a share"),
        ({"label_smoothing": -0.1}, r"label_smoothing is -0\.1; expected a share"),
        ({"data": {"images": "frames"}}, r"data\.images is 'frames'; fine-tuning uses"),
        ({"head": {"kind": "mlp"}}, r"config\.head\.kind is 'mlp'; expected one of"),
    ],
)
def test_invalid_settings_raise(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse(FinetuneConfig, changes)


@pytest.fixture
def sprites():
    """Settings of a run on sprites, without a task."""
    return dataclasses.replace(
        parse(FinetuneConfig, {"clip": {"frames": 4, "size": 32}}),
        data=data_of(SourceConfig(kind="sprites", clips=8)),
        test=SourceConfig(kind="sprites", split="test", clips=8),
    )


@pytest.mark.parametrize("name", [name for name in config_files.names() if name.startswith("finetune/")])
def test_config_files_have_one_source_and_test_clips(name):
    config = parse(FinetuneConfig, config_files.load(config_files.find(name)))
    assert config.source in ("videos", "sprites")
    assert config.holdout or config.test.kind == "sprites" or name == "finetune/folder"


def test_sprites_without_a_task_raise(sprites):
    with pytest.raises(ConfigError, match=r"config\.task is empty, .* name one of appearance, motion, order"):
        labelled_sources.open_sources(sprites)


@pytest.mark.slow
def test_labels_of_sprites_are_those_of_their_clips(sprites):
    opened = labelled_sources.open_sources(dataclasses.replace(sprites, task="order"))
    (source,) = opened.opened
    _, labels = source.render(sprites.clip, sprites.seed, np.arange(8, dtype=np.int32))
    np.testing.assert_array_equal(opened.label_I, labels["order"])


def test_runs_of_another_kind_are_told_apart(pretrained, settings, tmp_path):
    with pytest.raises(ConfigError, match=r"is the folder of a pretraining run; expected one of fine-tuning"):
        finetune_job.finetune(parsed(settings), pretrained)
    workdir.open_workdir(tmp_path / "run", parsed(settings))
    with pytest.raises(ConfigError, match=r"config\.init is .*run is the folder of a fine-tuning run"):
        initial_weights.read(str(tmp_path / "run"))
