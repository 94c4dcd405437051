"""Runs resumed with allowed changes: more steps, moved data, other implementations of the same computation."""

import dataclasses
import json
import shutil

import chex
import jax
import numpy as np
import pytest
import tiny_run

from jepa_jax.checkpoints import manager, reader
from jepa_jax.config import Config
from jepa_jax.settings import ConfigError, parse, to_dict
from jepa_jax.training import loop, schedules
from jepa_jax.training.setup import build_setup, init_state

SETTINGS = tiny_run.SETTINGS | {
    "optim": {"peak_lr": 1e-3, "final_lr": 1e-6, "warmup_steps": 2, "final_weight_decay": 0.4},
    "objectives": {
        "prediction": {},
        "context_prediction": {"schedule": {"shape": "ramp", "start": 0.0, "end": 1.0}},
    },
}


def config_with(**changes):
    return parse(Config, SETTINGS | changes)


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def column(workdir, name):
    return [record[name] for record in records(workdir)]


def final_state(workdir):
    setup = build_setup(config_with())
    with manager.Checkpointer(workdir, keep=10) as checkpointer:
        return checkpointer.restore(jax.eval_shape(lambda: init_state(setup, 0)))


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """A finished run of six steps."""
    workdir = tmp_path_factory.mktemp("six") / "run"
    loop.train(config_with(), workdir)
    return workdir


@pytest.fixture
def copy(six, tmp_path):
    return shutil.copytree(six, tmp_path / "run")


@pytest.mark.slow
def test_extending_with_hold_equals_a_run_planned_that_way(six, copy, tmp_path, capsys):
    assert loop.train(config_with(steps=10), copy, extend="hold") == loop.Outcome(step=10)
    assert "Schedules hold: planned for 6 steps as before" in capsys.readouterr().out
    assert column(copy, "loss")[:6] == column(six, "loss")
    assert column(copy, "learning_rate")[5:] == [pytest.approx(1e-6)] * 5
    assert column(copy, "weight_decay")[5:] == [pytest.approx(0.4)] * 5
    assert column(copy, "context_prediction/weight")[6:] == [0.5] * 4

    loop.train(config_with(steps=10, schedule_steps=6), tmp_path / "planned")
    assert column(copy, "loss") == column(tmp_path / "planned", "loss")
    chex.assert_trees_all_equal(final_state(copy), final_state(tmp_path / "planned"))
    assert reader.read_encoder(copy).config == config_with(steps=10, schedule_steps=6)

    # The command without --resume=extend resumes the run bit for bit.
    for saved in (8, 10):
        shutil.rmtree(copy / "checkpoints" / str(saved))
    assert loop.train(config_with(steps=10), copy) == loop.Outcome(step=10)
    assert "Extending" not in capsys.readouterr().out
    assert column(copy, "loss") == column(tmp_path / "planned", "loss")
    chex.assert_trees_all_equal(final_state(copy), final_state(tmp_path / "planned"))
    with pytest.raises(ConfigError, match=r"config\.steps: 10 → 6"):
        loop.train(config_with(), copy)


@pytest.mark.slow
def test_extending_with_stretch_uses_schedules_of_the_new_length(six, copy, capsys):
    assert loop.train(config_with(steps=10), copy, extend="stretch") == loop.Outcome(step=10)
    assert "Schedules stretch: planned for 10 steps instead of 6" in capsys.readouterr().out
    assert column(copy, "loss")[:6] == column(six, "loss")
    expected = [schedules.learning_rate(config_with().optim, 10, now) for now in range(7, 11)]
    np.testing.assert_allclose(column(copy, "learning_rate")[6:], expected, rtol=1e-6)
    np.testing.assert_allclose(column(copy, "context_prediction/weight")[6:], [0.3, 0.35, 0.4, 0.45], rtol=1e-6)
    # The same command again, as after an interruption, does not extend the run further.
    assert loop.train(config_with(steps=10), copy, extend="stretch") == loop.Outcome(step=10)
    assert "Extending" not in capsys.readouterr().out


@pytest.mark.slow
def test_extending_to_fewer_steps_than_done_raises(copy):
    with pytest.raises(ConfigError, match=r"has done 6 steps; config\.steps is 4"):
        loop.train(config_with(steps=4), copy, extend="hold")
    assert json.loads((copy / "config.json").read_text())["steps"] == 6


@pytest.mark.slow
def test_more_steps_without_extend_raise(copy):
    with pytest.raises(ConfigError, match=r"(?s)config\.steps: 6 → 10\n.*--resume=extend"):
        loop.train(config_with(steps=10), copy)
    assert column(copy, "step") == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_finished_run_explains_how_to_train_longer(copy, capsys):
    loop.train(config_with(), copy)
    printed = capsys.readouterr().out
    assert "nothing to do. To train it longer, add --resume=extend" in printed
    assert "Attention" not in printed  # reported only on accelerators


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"scan": False, "remat": "full"}, {"remat": "level", "attention": "fused"}])
def test_other_block_implementations_resume_up_to_rounding(six, copy, changed, caplog):
    shutil.rmtree(copy / "checkpoints" / "6")
    assert loop.train(config_with(encoder=SETTINGS["encoder"] | changed), copy) == loop.Outcome(step=6)
    for name in changed:
        assert f"config.encoder.{name}: " in caplog.text
    np.testing.assert_allclose(column(copy, "loss"), column(six, "loss"), rtol=1e-5)
    chex.assert_trees_all_close(final_state(copy), final_state(six), atol=1e-4)


@pytest.mark.slow
def test_workdir_of_an_earlier_version_resumes_bit_for_bit(six, copy):
    """Earlier versions wrote no data.json and had fewer settings."""
    (copy / "data.json").unlink()
    settings = json.loads((copy / "config.json").read_text())
    del settings["schedule_steps"]
    settings["encoder"]["attention"] = "xla"
    (copy / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    shutil.rmtree(copy / "checkpoints" / "6")
    assert loop.train(config_with(), copy) == loop.Outcome(step=6)
    assert column(copy, "loss") == column(six, "loss")
    chex.assert_trees_all_equal(final_state(copy), final_state(six))
    assert (copy / "data.json").exists()
    assert reader.read_encoder(copy).config == config_with(encoder=SETTINGS["encoder"] | {"attention": "xla"})


@pytest.mark.slow
def test_moved_data_resume_bit_for_bit_and_changed_data_raise(tmp_path, write_video):
    for i in range(4):
        write_video(tmp_path / "old" / f"class{i % 2}" / f"{i}.mp4", frames=8 + i)

    def config(folder):
        sources = {"mine": {"kind": "videos", "path": str(folder)}}
        return config_with(data={"sources": sources, "workers": 0})

    run = tmp_path / "run"
    loop.train(config(tmp_path / "old"), run)
    whole, losses = final_state(run), column(run, "loss")
    shutil.rmtree(run / "checkpoints" / "6")
    shutil.copytree(tmp_path / "old", tmp_path / "new", copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "old")
    assert loop.train(config(tmp_path / "new"), run) == loop.Outcome(step=6)
    assert column(run, "loss") == losses
    chex.assert_trees_all_equal(final_state(run), whole)

    (tmp_path / "new" / "class0" / "0.mp4").unlink()
    with pytest.raises(ConfigError, match=r"1 removed \('class0/0\.mp4'\)"):
        loop.train(config(tmp_path / "new"), run)
    loop.train(dataclasses.replace(config(tmp_path / "new"), steps=7), run, extend="hold")
    (entry,) = json.loads((run / "extensions.json").read_text())
    assert "1 removed ('class0/0.mp4')" in entry["changes"][-1]
    assert to_dict(reader.read_encoder(run).config)["data"]["sources"]["mine"]["path"] == str(tmp_path / "new")
