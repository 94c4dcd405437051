"""Extending a run with more steps or other schedules: what is planned, recorded and reported."""

import dataclasses
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax.config import Config, OptimConfig
from jepa_jax.objectives import base
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import extension, schedules

OPTIM = OptimConfig(start_lr=1e-4, peak_lr=1e-3, final_lr=1e-6, warmup_steps=2, final_weight_decay=0.4)
RAMP = {"context_prediction": {"coefficient": 0.5, "schedule": {"shape": "ramp", "start": 0.0, "end": 1.0}}}


def config(steps, **changes):
    return dataclasses.replace(parse(Config, {"objectives": RAMP}), steps=steps, optim=OPTIM, **changes)


def extend(run, step, new, how):
    """Extends a run as training does after restoring a step, and returns the report."""
    new = dataclasses.replace(new, schedule_steps=extension.schedule_steps(new, run, how))
    folder = workdir.open_workdir(run, new, extend=True)
    change = extension.Extension(step, workdir.load_config(folder), new)
    return extension.begin(change, folder)


@pytest.fixture
def run(tmp_path):
    return workdir.open_workdir(tmp_path / "run", config(20))


def row(table, name):
    return [
        float(number)
        for number in re.findall(
            r"[\d.e-]+(?= →|  |$)",
            next(line for line in table.splitlines() if line.strip().startswith(name)).split(name)[1],
        )
    ]


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        (("hold", 40), None, (40, 20)),
        (("stretch", 40), None, (40, 40)),
        (("hold", 40), ("hold", 60), (60, 20)),
        (("hold", 40), ("stretch", 60), (60, 60)),
        (("stretch", 40), ("hold", 60), (60, 40)),
        (("hold", 40), ("hold", 40), (40, 20)),
        (("stretch", 40), ("hold", 40), (40, 40)),
        (("hold", 40), ("stretch", 40), (40, 40)),
        (("hold", 20), None, (20, 20)),
        (("hold", 15), None, (15, 20)),
        (("stretch", 15), None, (15, 15)),
    ],
)
def test_schedule_length_after_extensions(run, first, then, expected):
    for how, steps in filter(None, (first, then)):
        extend(run, 10, config(steps), how)
    recorded = workdir.load_config(run)
    assert (recorded.steps, schedules.length(recorded)) == expected
    # The command with the new number of steps, without --resume=extend, resumes it.
    plain = config(recorded.steps)
    plain = dataclasses.replace(plain, schedule_steps=extension.schedule_steps(plain, run, None))
    assert plain == recorded
    assert workdir.open_workdir(run, plain) == run


def test_explicit_schedule_steps_take_precedence(run):
    assert extension.schedule_steps(config(40, schedule_steps=30), run, "hold") == 30
    assert extension.schedule_steps(config(40, schedule_steps=30), run, None) == 30


def test_extending_a_missing_run_raises(tmp_path):
    assert extension.schedule_steps(config(40), tmp_path / "none", None) == 0
    with pytest.raises(ConfigError, match=r"There is no run in .*none to extend"):
        extension.schedule_steps(config(40), tmp_path / "none", "hold")


@pytest.mark.parametrize(("how", "now", "end"), [("hold", 0.475, 0.5), ("stretch", 0.2375, 0.4875)])
def test_report_has_the_values_before_and_after(run, how, now, end):
    text = extend(run, 20, config(40), how)
    assert "config.steps: 20 → 40" in text
    assert f"Schedules {how}" in text
    assert row(text, "context_prediction weight") == pytest.approx([0.475, now, 0.475, end])
    new = workdir.load_config(run)
    rate = [float(schedules.learning_rate(OPTIM, length, 20)) for length in (20, schedules.length(new))]
    assert row(text, "learning_rate") == pytest.approx([*rate, 1e-6, 1e-6], rel=1e-4)
    assert row(text, "weight_decay")[2:] == pytest.approx([0.4, 0.4])
    assert row(text, "ema_decay") == [0.99925] * 4


def test_changed_schedule_settings_are_reported(run):
    more = dataclasses.replace(config(40), optim=dataclasses.replace(OPTIM, final_lr=1e-4))
    text = extend(run, 20, more, "hold")
    assert "config.optim.final_lr: 1e-06 → 0.0001" in text
    assert row(text, "learning_rate") == pytest.approx([1e-6, 1e-4, 1e-6, 1e-4])


def test_extensions_are_recorded_in_the_workdir(run):
    extend(run, 20, config(40), "hold")
    extend(run, 30, config(60), "stretch")
    listed = json.loads((run / "extensions.json").read_text())
    assert [entry["step"] for entry in listed] == [20, 30]
    assert [entry["steps"] for entry in listed] == [[20, 40], [40, 60]]
    assert [entry["schedule_steps"] for entry in listed] == [[20, 20], [20, 60]]
    assert listed[0]["changes"] == ["config.steps: 20 → 40", "config.schedule_steps: 0 → 20"]
    assert listed[1]["changes"] == ["config.steps: 40 → 60", "config.schedule_steps: 20 → 0"]


def test_extension_killed_between_its_two_writes_is_recorded_once(run):
    before = (run / "config.json").read_bytes()
    extend(run, 20, config(40), "hold")
    (run / "config.json").write_bytes(before)
    extend(run, 20, config(40), "hold")
    assert len(json.loads((run / "extensions.json").read_text())) == 1


def test_fewer_steps_than_done_raise_and_nothing_is_written(run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(ConfigError, match=r"done 12 steps; config\.steps is 11\. .* at least 12"):
        extend(run, 12, config(11), "hold")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_checkpoint_older_than_the_extension_logs_a_warning(run, caplog):
    extension.warn_if_before(run, 0)
    extend(run, 20, config(40), "stretch")
    extension.warn_if_before(run, 20)
    assert not caplog.text
    extension.warn_if_before(run, 18)
    assert "extended at step 20, but its newest usable checkpoint is step 18" in caplog.text


def test_schedules_keep_their_final_values_past_their_length():
    planned = config(40, schedule_steps=20)
    for name, value in extension.values(planned, 21).items():
        assert extension.values(planned, 40)[name] == value
    assert extension.values(planned, 40)["learning_rate"] == pytest.approx(1e-6)
    for step in (1, 7, 20):
        assert extension.values(planned, step) == extension.values(config(20), step)


def test_progress_of_objectives_follows_the_schedule_length():
    contexts = [base.StepContext(step=jnp.int32(step), key=None, steps=20) for step in (0, 10, 20, 30)]
    np.testing.assert_array_equal([now.progress for now in contexts], [0.0, 0.5, 1.0, 1.0])
