import dataclasses
import json

import pytest
import tiny_study

from jepa_jax import config_files
from jepa_jax.config import SourceConfig
from jepa_jax.settings import ConfigError, parse
from jepa_jax.study import results_folder
from jepa_jax.study.engine import estimate
from jepa_jax.study.run_record import ControlsRecord, RunRecord
from jepa_jax.study.study_config import StudyConfig


def record_of(run, **changes):
    values = {"study": "tiny", "recipe": run.recipe, "seed": run.seed, "settings_sha256": run.settings_sha256}
    return RunRecord(**values | {"status": "done"} | changes)


def test_runs_are_ordered_by_seed_with_primary_recipes_first():
    names = [run.name for run in tiny_study.plan().runs]
    assert names == [
        "baseline-239", "fwm-239", "ld-239", "baseline-240", "fwm-240", "baseline-241", "fwm-241",
    ]  # fmt: skip


def test_runs_have_the_settings_of_their_recipe_and_save_the_steps_to_probe():
    plan = tiny_study.plan()
    run = next(run for run in plan.runs if run.name == "fwm-240")
    assert run.config.seed == 240
    assert run.config.recipe == "fwm"
    assert run.config.objectives["factorization_static"].coefficient == 0.05
    assert run.config.objectives.keys() >= {"prediction", "context_prediction"}
    assert run.config.checkpoint.at == plan.probed_steps == (3, 6)
    assert run.clips == 48


def test_fingerprint_is_of_the_settings_that_affect_results():
    plan = tiny_study.plan()
    of = {run.name: run.settings_sha256 for run in plan.runs}
    assert of["fwm-239"] == of["fwm-240"] != of["baseline-239"]

    def changed(**changes):
        return tiny_study.plan(**changes).runs[0].settings_sha256 != of["baseline-239"]

    train, sprites = tiny_study.STUDY.train, tiny_study.SPRITES
    assert not changed(primary_seeds=9, contrasts=(), keep_checkpoints=True, name="other")
    assert not changed(train=dataclasses.replace(train, data=dataclasses.replace(train.data, workers=5)))
    assert not changed(evaluations={"sprites": dataclasses.replace(sprites, workers=5, batch_size=3)})
    assert changed(train=dataclasses.replace(train, batch_size=4))
    assert changed(evaluations={"sprites": dataclasses.replace(sprites, seed=1)})
    assert changed(label_fractions=(0.25, 1.0))
    source = {"sprites": SourceConfig(kind="sprites", exclude="7")}
    assert changed(train=dataclasses.replace(train, data=dataclasses.replace(train.data, sources=source)))


def test_results_of_the_same_settings_are_accepted_from_another_folder(tmp_path):
    plan = tiny_study.plan()
    plan.open_results(tmp_path / "a")
    results_folder.write(results_folder.run_file(tmp_path / "a", "fwm", 239), record_of(plan.runs[1]))
    study = results_folder.read_study(tmp_path / "a")
    assert study is not None
    assert study.recipes["fwm"].seeds == (239, 240, 241)
    assert study.recipes["fwm"].primary
    assert any("factorization_static" in line for line in study.recipes["fwm"].changes)
    assert study.recipes["baseline"].changes == ()
    assert study.contrasts == (("fwm", "baseline"),)
    assert study.settings["train"]["batch_size"] == 8
    tiny_study.plan(primary_seeds=5, data=dataclasses.replace(tiny_study.STUDY.data, root="x")).open_results(
        tmp_path / "a"
    )
    more = results_folder.read_study(tmp_path / "a")
    assert more is not None
    assert more.recipes["fwm"].seeds == (239, 240, 241, 242, 243)
    tiny_study.plan(secondary=()).open_results(tmp_path / "a")
    fewer = results_folder.read_study(tmp_path / "a")
    assert fewer is not None
    assert "ld" in fewer.recipes  # its records are still there


def test_results_of_other_settings_raise_with_the_setting(tmp_path):
    tiny_study.plan().open_results(tmp_path)
    before = (tmp_path / "study.json").read_text()
    train = dataclasses.replace(tiny_study.STUDY.train, steps=8)
    with pytest.raises(ConfigError, match=r"config\.train\.steps: 6 → 8"):
        tiny_study.plan(train=train).open_results(tmp_path)
    sprites = dataclasses.replace(tiny_study.SPRITES, train=SourceConfig(kind="sprites", clips=50))
    with pytest.raises(ConfigError, match=r"config\.evaluations\.sprites\.train\.clips: 48 → 50"):
        tiny_study.plan(evaluations={"sprites": sprites}).open_results(tmp_path)
    with pytest.raises(ConfigError, match="results of the study 'tiny'"):
        tiny_study.plan(name="other").open_results(tmp_path)
    assert (tmp_path / "study.json").read_text() == before


def test_settings_that_were_added_since_have_their_defaults(tmp_path):
    plan = tiny_study.plan()
    plan.open_results(tmp_path)
    content = json.loads((tmp_path / "study.json").read_text())
    added = content["settings"]["train"]["optim"].pop("accumulate")
    content["settings"]["evaluations"]["sprites"].pop("fold_by")
    (tmp_path / "study.json").write_text(json.dumps(content))
    plan.open_results(tmp_path)
    assert json.loads((tmp_path / "study.json").read_text())["settings"]["train"]["optim"]["accumulate"] == added
    content["settings"]["train"].pop("steps")  # its default is not what this study has
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"config\.train\.steps: 30000 → 6"):
        plan.open_results(tmp_path)


def test_records_of_other_settings_raise_with_the_file(tmp_path):
    plan = tiny_study.plan()
    file = results_folder.run_file(tmp_path, "fwm", 239)
    results_folder.write(file, record_of(plan.runs[0], recipe="fwm"))
    with pytest.raises(ConfigError, match=r"fwm/239\.json was made with other settings"):
        plan.open_results(tmp_path)
    file.unlink()
    results_folder.write(tmp_path / "controls.json", ControlsRecord(study="tiny", settings_sha256="x"))
    with pytest.raises(ConfigError, match=r"The controls in .* were made with other settings"):
        plan.open_results(tmp_path)


def test_changed_definition_of_a_recipe_raises(tmp_path):
    plan = tiny_study.plan()
    plan.open_results(tmp_path)
    content = json.loads((tmp_path / "study.json").read_text())
    content["recipes"]["fwm"]["changes"] = ["config.target: 'ema' → 'online'"]
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"(?s)recipe 'fwm': config\.target.* → config\.objectives"):
        plan.open_results(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, r"config\.name is empty"),
        ({"evaluations": {}}, r"config\.evaluations is empty"),
        ({"primary": ("baseline", "fwmm"), "contrasts": ()}, "Did you mean 'fwm'"),
        ({"clip_fractions": (0.01, 0.02, 1.0)}, "several are the same step"),
    ],
)
def test_incomplete_study_raises(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_study.plan(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "expected letters"),
        ({"secondary": ("fwm",)}, "both have fwm"),
        ({"contrasts": (("hw", "baseline"),)}, "neither primary nor secondary has 'hw'"),
        ({"primary_seeds": 0}, "primary_seeds is 0"),
        ({"label_fractions": (0.5,)}, "the last one 1"),
        ({"clip_fractions": (0.5, 0.25, 1.0)}, "ascending"),
    ],
)
def test_invalid_study_settings_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_study.STUDY, **changes)


@pytest.mark.parametrize("name", [name for name in config_files.names() if name.startswith("study/")])
def test_study_config_is_complete(name):
    study = parse(StudyConfig, config_files.load_named(name))
    plan = tiny_study.Plan(study)
    assert plan.study.name == name.removeprefix("study/")
    assert len({run.name for run in plan.runs}) == len(plan.runs)


def test_estimate_counts_what_remains():
    plan = tiny_study.plan()
    measured = estimate.Measured(start=10.0, step=2.0, state_bytes=2**30, probe=4.0, final_probe=8.0)
    text = estimate.describe(plan, list(plan.runs[2:]), 1, measured, "cpu", 2)
    assert "7 runs of 6 steps of 8 clips" in text
    assert "Done: 1. Failed: 1. Remaining: 5." in text
    assert "A run takes 34 s; what remains takes 0.0 hours" in text
    assert "Disk: 24.00 GiB at most" in text  # two runs of two probed and ten recent checkpoints
    alone = estimate.Measured(start=10.0, step=2000.0, state_bytes=0, reason="no clips")
    text = estimate.describe(plan, list(plan.runs), 0, alone, "cpu", 1)
    assert "probes not measured: no clips" in text
    assert "what remains takes 23.4 hours." in text
