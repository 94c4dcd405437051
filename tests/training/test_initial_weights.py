"""Runs that start from weights: another run's checkpoint or a file, read once and recorded."""

import dataclasses
import json
import os
import shutil
import signal

import chex
import jax
import numpy as np
import pytest
import tiny_run
from etils import epath

from jepa_jax import data, weights
from jepa_jax.checkpoints import initial_weights, reader
from jepa_jax.checkpoints.manager import Checkpointer
from jepa_jax.config import Config
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import loop
from jepa_jax.training.setup import build_setup, init_state


def config_with(**changes):
    return parse(Config, tiny_run.SETTINGS | {"steps": 2} | changes)


def state(folder, config, step=None):
    abstract = jax.eval_shape(lambda: init_state(build_setup(config), 0))
    copied = folder.with_name(f"{folder.name}-{step}")
    shutil.copytree(folder, copied)
    for saved in reader.saved_steps(copied):
        if step is not None and saved > step:
            shutil.rmtree(copied / "checkpoints" / str(saved))
    with Checkpointer(copied, keep=10) as checkpointer:
        found = checkpointer.restore(abstract)[1]
    shutil.rmtree(copied)
    return found


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("first") / "run"
    loop.train(config_with(seed=1), folder)
    return folder


@pytest.fixture(scope="module")
def untrained():
    """The state of another run before its first step."""
    return jax.jit(lambda: init_state(build_setup(config_with()), 1))()


@pytest.fixture(scope="module")
def exported(untrained, tmp_path_factory):
    """Its encoder and predictor as a folder of weights."""
    config, folder = config_with(), tmp_path_factory.mktemp("weights") / "exported"
    parts = (config.encoder, untrained.params["encoder"], config.predictor, untrained.params["predictor"])
    weights.save(folder, *parts, config.clip, format="vjepa2.1")
    return folder


@pytest.mark.slow
def test_run_starts_from_another_run_and_resumes_when_that_is_gone(first, tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    shutil.copytree(first, source)
    longer = config_with(init=f"{source}:2", steps=4, optim={"final_lr": 1e-6})
    take = data.TrainBatches.__next__
    taken = []

    def interrupted(batches):
        taken.append(1)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(batches)

    with monkeypatch.context() as patch:
        patch.setattr(data.TrainBatches, "__next__", interrupted)
        assert loop.train(longer, tmp_path / "stopped").stopped_by == "SIGTERM"
    assert "Starting from" in (out := capsys.readouterr().out)
    assert "encoder, target encoder, predictor. Fresh: optimizer." in out
    before, start = state(first, config_with()), state(tmp_path / "stopped", longer, 0)
    for part in ("encoder", "predictor"):
        chex.assert_trees_all_equal(start.params[part], before.params[part])
    chex.assert_trees_all_equal(start.target_params, before.target_params)
    assert not any(np.any(x) for x in jax.tree.leaves(start.opt_state))

    loop.train(longer, tmp_path / "whole")
    shutil.rmtree(source)
    loop.train(longer, tmp_path / "stopped")
    chex.assert_trees_all_equal(state(tmp_path / "stopped", longer), state(tmp_path / "whole", longer))
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["init"] == f"{source}:2"
    with pytest.raises(ConfigError, match=r"config\.init: '.*:2' → ''"):
        loop.train(dataclasses.replace(longer, init=""), tmp_path / "whole")


@pytest.mark.slow
def test_file_gives_encoder_and_target_and_is_recorded(exported, untrained, tmp_path):
    """Another resolution and number of frames are accepted."""
    config = config_with(init=str(exported), clip={"frames": 8, "size": 32}, steps=1)
    loop.train(config, tmp_path / "run")
    start = state(tmp_path / "run", config, 0)
    chex.assert_trees_all_equal(start.params["encoder"], untrained.params["encoder"])
    chex.assert_trees_all_equal(start.target_params, untrained.params["encoder"])
    chex.assert_trees_all_equal(start.params["predictor"], untrained.params["predictor"])
    record = initial_weights.load_record(epath.Path(tmp_path / "run"))
    assert record is not None
    assert record.sha256 == weights.references.sha256(exported)
    assert record.encoder == config.encoder
    assert record.fresh == ("optimizer",)


def test_other_model_is_refused_with_all_differences_and_flags(exported):
    encoder = {"size": "32x3x1", "patch": 4, "levels": 3}
    config = config_with(init=str(exported), encoder=encoder, predictor={"size": "16x2x1"}, clip={"size": 32})
    with pytest.raises(ConfigError) as error:
        initial_weights.require_fit(config, initial_weights.read(str(exported)))
    assert "config.encoder.size: 16x2x1 there, 32x3x1 here" in str(error.value)
    assert str(error.value).endswith(
        "add --config.encoder.size=16x2x1 --config.encoder.patch=8 --config.encoder.levels=2 "
        "--config.predictor.size=16x1x1"
    )


def test_predictor_of_another_encoders_features_starts_fresh(exported):
    found = initial_weights.read(str(exported))
    assert found.predictor is not None
    assert initial_weights.require_fit(config_with(), found) is None
    distilled = dataclasses.replace(found, predictor=dataclasses.replace(found.predictor, output=48))
    assert initial_weights.require_fit(config_with(), distilled) == (
        "its 48 outputs are not the 32 channels of this encoder"
    )
    last = dataclasses.replace(found, predictor=dataclasses.replace(found.predictor, levels=1))
    assert initial_weights.require_fit(config_with(), last) == "it takes 1 of the 2 levels"


def test_unequal_levels_are_compared_by_their_ends(exported):
    found = initial_weights.read(str(exported))
    deeper = config_with(encoder={"size": "16x3x1", "levels": 2, "patch": 8, "level_ends": (2, 3)})
    with pytest.raises(ConfigError, match=r'--config\.encoder\.level_ends="\(1, 2\)"'):
        initial_weights.require_fit(deeper, found)


@pytest.mark.parametrize("reference", ["none.pt", "nowhere", "gs:"])
def test_missing_weights_raise(tmp_path, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.init"):
        initial_weights.read(reference)


def test_damaged_file_raises_a_config_error(tmp_path):
    (tmp_path / "damaged.pt").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"config\.init: .*damaged\.pt is truncated or damaged"):
        initial_weights.read(str(tmp_path / "damaged.pt"))


def test_replaced_file_of_a_run_without_checkpoint_raises(exported, tmp_path):
    found, folder = initial_weights.read(str(exported)), epath.Path(tmp_path)
    initial_weights.record(folder, found, ("encoder",), ())
    initial_weights.record(folder, found, ("encoder",), ())
    with pytest.raises(ConfigError, match=r"started from another file of this name"):
        initial_weights.record(folder, dataclasses.replace(found, sha256="0" * 64), ("encoder",), ())
