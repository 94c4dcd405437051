import dataclasses
import shutil

import jax
import numpy as np
import pytest

from jepa_jax.checkpoints import reader
from jepa_jax.config import Config
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.files.paths import split_step
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError

TRAINING_CONFIG = """
from jepa_jax.config import Config, defaults

def get_config(recipe="baseline"):
    config = defaults(Config)
    config.recipe = recipe
    config.clip.frames, config.clip.size = 2, 16
    config.encoder.size, config.encoder.patch = "16x1x2", 4
    config.encoder.levels = 1
    config.predictor.size = "16x1x2"
    return config
"""


def assert_same(actual, expected, shift=0.0):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + shift, atol=1e-6), actual, expected)


@pytest.mark.parametrize(
    ("reference", "folder", "step"),
    [("runs/a", "runs/a", None), ("runs/a:12", "runs/a", 12), ("gs://a/b", "gs://a/b", None), ("a:b", "a:b", None)],
)
def test_split_step(reference, folder, step):
    assert split_step(reference) == (folder, step)


@pytest.mark.slow
def test_workdir_loads_the_newest_ema_encoder(training_run, initial_encoder):
    found = frozen_encoder.load(str(training_run))
    assert (found.step, found.weights, found.source) == (7, "ema", str(training_run))
    assert_same(found.params, initial_encoder, shift=-0.07)
    assert found.config.encoder.size == "16x1x2"


def test_step_can_be_chosen(training_run, initial_encoder):
    found = frozen_encoder.load(f"{training_run}:3")
    assert found.step == 3
    assert_same(found.params, initial_encoder, shift=-0.03)


def test_random_of_a_workdir_is_its_initial_encoder(training_run, initial_encoder):
    found = frozen_encoder.load(f"random:{training_run}")
    assert (found.step, found.weights) == (0, "random")
    assert_same(found.params, initial_encoder)


def test_random_of_a_config_file(tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(TRAINING_CONFIG)
    found = frozen_encoder.load(f"random:{file}:other")
    assert found.config.recipe == "other"
    assert found.config.seed == Config().seed
    assert_same(frozen_encoder.load("random", str(file)).params, found.params)


@pytest.mark.slow
def test_folder_with_the_name_of_a_config_does_not_hide_the_config(tmp_path, monkeypatch, training_run):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "folder"):
        (tmp_path / name).mkdir()
    assert frozen_encoder.load("random:quickstart").config == frozen_encoder.load_config_file("quickstart")
    shutil.copy(training_run / "config.json", tmp_path / "quickstart")
    assert frozen_encoder.load("random:quickstart").config == workdir.load_config(training_run)


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("", ConfigError, "--checkpoint is empty"),
        ("{tmp}/nowhere", ConfigError, "nowhere does not exist"),
        ("{tmp}", ConfigError, "not the folder of a training run"),
        ("{run}:4", reader.CheckpointError, "no checkpoint of step 4; it has 3, 7"),
        ("random", ConfigError, "random:WORKDIR, random:CONFIG.py, or config.random_model"),
        ("random:{tmp}/nowhere.py", ConfigError, "no training config .*nowhere.py"),
        (f"random:{__file__}", ConfigError, "no function get_config"),
    ],
)
def test_invalid_references_raise(reference, error, message, training_run, tmp_path):
    with pytest.raises(error, match=message):
        frozen_encoder.load(reference.format(tmp=tmp_path, run=training_run))


def test_run_without_checkpoint_raises(training_run, tmp_path):
    workdir.open_workdir(tmp_path / "run", dataclasses.replace(workdir.load_config(training_run), seed=1))
    with pytest.raises(reader.CheckpointError, match="has no checkpoint yet"):
        frozen_encoder.load(str(tmp_path / "run"))
