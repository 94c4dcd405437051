"""The target setting: moving average, the encoder itself, or the frozen encoder of another run."""

import dataclasses
import json

import chex
import jax
import pytest
import tiny_run

from jepa_jax.checkpoints import reader
from jepa_jax.checkpoints.manager import Checkpointer
from jepa_jax.config import Config
from jepa_jax.settings import ConfigError, parse, to_dict
from jepa_jax.training import loop
from jepa_jax.training.setup import build_setup, init_state


def config_with(**changes):
    return parse(Config, tiny_run.SETTINGS | {"steps": 2} | changes)


@pytest.mark.parametrize(("enabled", "target"), [(True, "ema"), (False, "online")])
def test_settings_of_older_runs_keep_their_meaning(enabled, target):
    old = to_dict(config_with(ema={"enabled": enabled}))
    for added in ("target", "target_checkpoint"):
        del old[added]
    for added in ("name", "grad_clip_norm", "accumulate"):
        del old["optim"][added]
    del old["ema"]["schedule"]
    read = parse(Config, old)
    assert (read.target, read.ema.enabled) == (target, enabled)
    assert read == config_with(target=target)
    assert parse(Config, to_dict(read)) == read


@pytest.mark.parametrize("settings", [{"target": "frozen"}, {"target_checkpoint": "runs/teacher"}])
def test_frozen_target_and_target_checkpoint_require_each_other(settings):
    with pytest.raises(
        ConfigError, match=r"target is '.*' and target_checkpoint is '.*'; target 'frozen' needs a checkpoint"
    ):
        config_with(**settings)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "run"
    loop.train(config_with(encoder=tiny_run.SETTINGS["encoder"] | {"size": "16x3x2"}, seed=1), folder)
    return folder


@pytest.mark.slow
def test_frozen_target_is_not_updated_and_cannot_be_replaced(teacher, tmp_path):
    config = config_with(target="frozen", target_checkpoint=f"{teacher}:2")
    assert loop.train(config, tmp_path / "run") == loop.Outcome(step=2)
    trained = reader.read_encoder(teacher)
    setup = build_setup(config, trained.config.encoder)
    with Checkpointer(tmp_path / "run", keep=2) as checkpointer:
        _, state = checkpointer.restore(jax.eval_shape(lambda: init_state(setup, 0)))
    chex.assert_trees_all_equal(state.target_params, trained.params)
    chex.assert_trees_all_equal(reader.read_encoder(tmp_path / "run").params, state.params["encoder"])
    assert json.loads((tmp_path / "run" / "target.json").read_text())["step"] == 2

    loop.train(dataclasses.replace(config, target_checkpoint=str(teacher)), tmp_path / "run")  # the same encoder
    other = tmp_path / "other"
    loop.train(trained.config, other / "run")
    loop.train(dataclasses.replace(trained.config, seed=2), other / "seed")
    with pytest.raises(ConfigError, match=r"config\.target_checkpoint is .*seed \(step 2, .*has the frozen target"):
        loop.train(dataclasses.replace(config, target_checkpoint=str(other / "seed")), tmp_path / "run")


@pytest.mark.slow
def test_frozen_target_with_another_width_raises(teacher):
    encoder = reader.read_encoder(teacher).config.encoder
    config = config_with(target="frozen", target_checkpoint=str(teacher))
    with pytest.raises(ConfigError, match=r"target_checkpoint: the target encoder has width 32 instead of 16"):
        build_setup(config, dataclasses.replace(encoder, size="32x2x1"))
