"""The training job resumes exactly where it stopped, and reports errors before it writes anything."""

import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
import tiny_run
from waiting import Pause, wait_until

from jepa_jax import data
from jepa_jax.checkpoints import manager, reader
from jepa_jax.config import Config
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import loop, monitor, step
from jepa_jax.training.setup import build_setup, init_state

REPOSITORY = pathlib.Path(__file__).parent.parent
SETTINGS = tiny_run.SETTINGS


def config_with(**changes):
    return parse(Config, SETTINGS | changes)


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    return [(record["step"], record["loss"], record["gradient_norm"]) for record in records(workdir)]


def final_state(workdir, settings=None):
    setup = build_setup(config_with() if settings is None else settings)
    abstract = jax.eval_shape(lambda seed: init_state(setup, seed), 0)
    with manager.Checkpointer(workdir, keep=10) as checkpointer:
        return checkpointer.restore(abstract)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    outcome = loop.train(config_with(), workdir)
    assert outcome == loop.Outcome(step=6)
    return workdir


def test_run_writes_metrics_and_checkpoints(whole):
    assert [record["step"] for record in records(whole)] == [1, 2, 3, 4, 5, 6]
    assert reader.saved_steps(whole) == [2, 4, 6]
    last = records(whole)[-1]
    assert {"loss", "loss/prediction", "loss/context_prediction", "gradient_norm", "learning_rate"} <= set(last)
    assert last["ema_decay"] == pytest.approx(0.99925)
    assert last["weight_decay"] == pytest.approx(0.04)
    assert last["rank/target"] >= 1
    assert last["feature_std/context"] > 0
    assert "rank/target" not in records(whole)[0]
    assert list((whole / "tensorboard").iterdir())
    assert json.loads((whole / "config.json").read_text())["seed"] == 239


def test_run_stopped_by_a_signal_resumes_bit_for_bit(whole, tmp_path, monkeypatch, capsys):
    take = data.TrainBatches.__next__
    taken = []

    def interrupted(batches):
        taken.append(1)
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(batches)

    with monkeypatch.context() as patch:
        patch.setattr(data.TrainBatches, "__next__", interrupted)
        outcome = loop.train(config_with(), tmp_path / "run")
    assert outcome.stopped_by == "SIGTERM"
    assert 0 < outcome.step < 6
    assert "Run the same command again to resume" in capsys.readouterr().out
    assert reader.saved_steps(tmp_path / "run")[-1] == outcome.step

    assert loop.train(config_with(), tmp_path / "run").stopped_by is None
    assert losses(tmp_path / "run") == losses(whole)
    chex.assert_trees_all_equal(final_state(tmp_path / "run"), final_state(whole))


def test_finished_run_has_nothing_to_do(whole, capsys):
    before = (whole / "metrics.jsonl").read_bytes()
    assert loop.train(config_with(), whole) == loop.Outcome(step=6)
    assert "nothing to do" in capsys.readouterr().out
    assert (whole / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_metrics_after_the_restored_step_are_removed(whole, tmp_path, monkeypatch):
    """As after a kill: the newest checkpoint is older than the last line, which is incomplete."""
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / "checkpoints" / "6")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "los')
    loop.train(config_with(), copy)
    assert losses(copy) == losses(whole)


@pytest.mark.slow
def test_changed_config_raises_and_overwrite_moves_the_old_run_aside(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    with pytest.raises(ConfigError, match=r"config\.seed: 239 → 1"):
        loop.train(config_with(seed=1), copy)
    assert losses(copy) == losses(whole)
    loop.train(config_with(seed=1), copy, overwrite=True)
    assert losses(copy) != losses(whole)
    assert losses(tmp_path / "run.old-1") == losses(whole)


@pytest.mark.slow
def test_non_finite_loss_stops_the_run_and_is_not_saved(tmp_path):
    optim = {"warmup_steps": 0, "peak_lr": 1e38, "final_lr": 1e38}
    with pytest.raises(monitor.NonFiniteLossError) as error:
        loop.train(config_with(optim=optim, checkpoint={"every": 1, "keep": 10}), tmp_path / "run")
    assert "not finite" in str(error.value)
    for saved in reader.saved_steps(tmp_path / "run"):
        params = reader.read_encoder(tmp_path / "run", saved).params
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.slow
def test_non_finite_loss_error_names_step_checkpoint_and_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(
        step.base,
        "total_loss",
        lambda o, h, latents, context: (1.0 / (1.0 - context.step) * latents.target_BxNxD.mean(), {}),
    )
    with pytest.raises(monitor.NonFiniteLossError, match=r"not finite at step 2 \(step 1 was finite\)") as error:
        loop.train(config_with(checkpoint={"every": 1, "keep": 10}), tmp_path / "run")
    assert "The last good checkpoint is step 1." in str(error.value)
    assert len(re.findall(r"sprites:\d+", str(error.value))) == 8
    assert reader.saved_steps(tmp_path / "run") == [1]


@pytest.mark.slow
def test_collapse_is_reported_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(monitor.collapse, "LEAST_STD", 1e6)
    loop.train(config_with(log={"every": 1, "features_every": 1}), tmp_path / "run")
    out = capsys.readouterr().err
    assert out.count("may have collapsed") == 1
    assert "Try a lower" in out


@pytest.mark.slow
def test_audit_is_logged_when_due_and_does_not_change_training(whole, tmp_path):
    loop.train(config_with(audit={"every": 4}), tmp_path / "run")
    audited = [record["step"] for record in records(tmp_path / "run") if "audit/prediction/loss" in record]
    assert audited == [1, 5]
    assert losses(tmp_path / "run") == losses(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": {"frames": 4, "size": 18}}, "do not divide into tubelets"),
        ({"encoder": {"size": "vit_bse"}}, "vit_base"),
        ({"encoder": {"size": "16x2x1", "levels": 3}}, "levels is 3; expected between 1"),
        ({"clip": {"frames": 4, "size": 16}, "encoder": {"patch": 16}}, "at least two positions in a frame"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"seed": 2**32}, "less than 2\\^31"),
        ({"batch_size": 9}, r"batch_size is 9, not a multiple of the 8 devices"),
        ({"mesh": {"fsdp": 3}}, "fsdp must divide"),
        ({"data": {"sources": {}}}, "source"),
        (
            {"data": {"sources": {"v": {"path": "nowhere"}}}},
            r"sources\.v\.path: .*nowhere does not exist",
        ),
    ],
)
def test_invalid_settings_raise_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        loop.train(config_with(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [("", "list.csv is empty"), ("a b.mp4 0\nno label.mp4\n", r"list\.csv:2: 'no label\.mp4' is not `path label`")],
)
def test_invalid_video_list_raises_before_anything_is_written(tmp_path, lines, message):
    (tmp_path / "a b.mp4").touch()
    (tmp_path / "list.csv").write_text(lines)
    sources = {"videos": {"kind": "videos", "path": str(tmp_path / "list.csv")}}
    with pytest.raises(ConfigError, match=message):
        loop.train(config_with(data={"sources": sources}), tmp_path / "run")
    (tmp_path / "empty").mkdir()
    sources["videos"]["path"] = str(tmp_path / "empty")
    with pytest.raises(ConfigError, match="no videos in"):
        loop.train(config_with(data={"sources": sources}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_that_do_not_affect_results_may_change_on_resume(whole, capsys):
    assert loop.train(config_with(checkpoint={"every": 3, "keep": 1}, log={"every": 2}), whole) == loop.Outcome(step=6)
    assert "nothing to do" in capsys.readouterr().out


CONFIG_FILE = """
from jepa_jax.config import Config
from jepa_jax.settings import parse, to_config_dict

def get_config(recipe="baseline"):
    return to_config_dict(parse(Config, {settings}))
"""


def command(folder, settings, *flags):
    file = folder / "tiny.py"
    file.write_text(CONFIG_FILE.replace("{settings}", repr(settings)))
    return [sys.executable, "-m", "jepa_jax.train", f"--config={file}", f"--workdir={folder / 'run'}", *flags]


def environment():
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}


def run(folder, settings, *flags):
    return subprocess.run(
        command(folder, settings, *flags), env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.optim.peek_lr=3"], 'Did you mean "peak_lr"'),
        (["--config.dtype=float16"], "config.dtype is 'float16'; expected one of 'float32', 'bfloat16'"),
        (["surplus"], "Unexpected argument 'surplus'"),
        (["--config.masks.short.spatial_scale=0.0"], "config.masks.short: spatial_scale is 0.0; expected a share"),
        (["--config.recipe=amg"], "choose the recipe with --config=FILE:RECIPE"),
        (["--schedules=stretch"], "--schedules=stretch needs --resume=extend"),
        (["--resume=extend"], "run to extend. Check --workdir"),
        (["--config.probe=nowhere.py"], "config.probe is nowhere.py, which is neither a file"),
        (["--config.probe=eval/sprits"], "Did you mean 'eval/sprites'? Known here: directions, eval/directions, "),
        (
            ["--config.learning_rate=0.5"],
            "not a setting. Did you mean --config.optim.peak_lr? Known in config: aud",
        ),
        (["--config.objectives.foo.coefficient=1"], "config.objectives.foo is not a setting. Known in config.objectiv"),
        (["--config.masks.shrt.blocks=3"], 'config.masks.shrt is not a setting. Did you mean "short"? Known in conf'),
        (["--config.optim.batch_size=3"], "not a setting. Did you mean --config.batch_size? Known in config.optim: a"),
        (["--config.optim.peak_lr.x=3"], "config.optim.peak_lr is a single setting; it has no 'x'"),
        (["--config.optim=3"], "config.optim is a group of settings; set one of config.optim.accumulate, "),
        (["--config.steps=abc"], "Error: --config.steps is 'abc'; expected a whole number."),
        (["--config.optim.peak_lr=fast"], "Error: --config.optim.peak_lr is 'fast'; expected a number."),
        (["--config.ema.enabled=maybe"], "Error: --config.ema.enabled is 'maybe'; expected true or false."),
        (["--noconfig.steps"], "--noconfig.steps: only true/false settings"),
        (["--steps=3"], "Unknown flag --steps. Did you mean --config.steps?"),
        (["--resume=overwritten"], "--resume is 'overwritten'; "),
        (["--processes=two"], "--processes is 'two'; expected a whole number."),
    ],
)
def test_invalid_flags_print_an_error_without_traceback(tmp_path, forks, flags, message):
    _, _, *arguments = command(tmp_path, SETTINGS, *flags)
    ended = forks.run(*arguments, cwd=REPOSITORY)
    assert ended.returncode != 0
    assert message in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def video_settings(tmp_path_factory, write_video):
    """Settings to train on video files with two workers, for several epochs in 40 steps."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(11):
        write_video(folder / f"class{i % 2}" / f"clip{i}.mp4", frames=12 + i)
    sources = {"videos": {"kind": "videos", "path": str(folder), "frame_step": 2}}
    return SETTINGS | {
        "steps": 40,
        "data": {"sources": sources, "workers": 2},
        "checkpoint": {"every": 7, "keep": 3},
    }


@pytest.fixture(scope="module")
def whole_on_video(tmp_path_factory, video_settings):
    folder = tmp_path_factory.mktemp("whole_on_video")
    ended = run(folder, video_settings)
    assert ended.returncode == 0, ended.stderr
    return folder / "run"


def assert_same_run(workdir, other, settings):
    assert losses(workdir) == losses(other)
    chex.assert_trees_all_equal(*(final_state(folder, parse(Config, settings)) for folder in (workdir, other)))


def lines(workdir):
    file = workdir / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.slow
def test_run_killed_repeatedly_resumes_bit_for_bit(tmp_path, video_settings, whole_on_video):
    """SIGKILL arrives between saves and during a save. The reference was not interrupted."""

    def kill_once(reached, variables):
        process = subprocess.Popen(
            command(tmp_path, video_settings),
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_until(reached, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    kill_once(lambda: lines(tmp_path / "run") >= 5, environment())
    for name, point in {
        "rename": r"os.rename .*/14\.partial$",
        "checksums": r"open .*/28\.partial/SHA256SUMS$",
        "begin": r"os.mkdir .*/35\.partial",
    }.items():
        pause = Pause(tmp_path / name, point)
        kill_once(pause.reached, pause.added_to(environment()))
    ended = run(tmp_path, video_settings)
    assert ended.returncode == 0, ended.stderr
    assert_same_run(tmp_path / "run", whole_on_video, video_settings)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_a_checkpoint_and_sets_the_exit_code(tmp_path, video_settings, whole_on_video, number):
    """The signal goes to the whole process group, workers included, as with Ctrl-C in a terminal."""
    process = subprocess.Popen(
        command(tmp_path, video_settings),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: lines(tmp_path / "run") >= 3, process)
    os.killpg(process.pid, number)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number, errors
    assert f"Stopped by {number.name} at step" in out
    assert "Traceback" not in errors
    stopped = int(re.search(r"at step (\d+) of 40", out)[1])
    assert reader.saved_steps(tmp_path / "run")[-1] == stopped
    assert run(tmp_path, video_settings).returncode == 0
    assert_same_run(tmp_path / "run", whole_on_video, video_settings)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_newest_checkpoint_is_skipped(tmp_path, video_settings, whole_on_video, damage):
    shutil.copytree(whole_on_video, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "40"
    file = max(newest.glob("state/**/d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)
    ended = run(tmp_path, video_settings)
    assert ended.returncode == 0, ended.stderr
    assert "Skipping the checkpoint of step 40, which is damaged" in ended.stderr
    assert "Resuming" in ended.stdout
    assert_same_run(tmp_path / "run", whole_on_video, video_settings)


def is_held_by(pid, lock):
    return lock.exists() and f'"pid": {pid},' in lock.read_text()


@pytest.mark.slow
def test_second_command_in_the_same_workdir_prints_an_error(tmp_path, video_settings, whole_on_video):
    """The first run is not affected. If it is killed, the next run takes over without waiting."""
    for killed in (True, False):
        process = subprocess.Popen(
            command(tmp_path, video_settings),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        wait_until(functools.partial(is_held_by, process.pid, tmp_path / "run" / "lock.json"), process)
        os.kill(process.pid, signal.SIGSTOP)  # it must not end before the second run has read the lock
        refused = run(tmp_path, video_settings)
        os.kill(process.pid, signal.SIGCONT)
        assert refused.returncode == 1
        assert f"run is in use by process {process.pid} on" in refused.stderr
        assert "Traceback" not in refused.stderr
        if killed:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert_same_run(tmp_path / "run", whole_on_video, video_settings)
