"""Which settings may change on resume, by their effect on the computation."""

import dataclasses
import fnmatch
import itertools
import typing

import chex
import jax
import pytest
import tiny_run

from jepa_jax import objectives
from jepa_jax.config import Attention, Config, Remat
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.run_dir import changes, workdir
from jepa_jax.settings import parse, to_dict
from jepa_jax.training.setup import build_setup, init_state

CONFIG = parse(Config, tiny_run.SETTINGS)


def settings(tree, path="config"):
    """The full names of all settings."""
    if not isinstance(tree, dict):
        return [path]
    return [name for key, value in tree.items() for name in settings(value, f"{path}.{key}")]


ALL = settings(to_dict(CONFIG))
OF_FINE_TUNING = settings(to_dict(FinetuneConfig()))
FIXED = [
    *("config.seed", "config.batch_size", "config.init"),
    *(name for name in ALL if name.startswith(("config.clip.", "config.predictor.", "config.masks.", "config.data.a"))),
    *(f"config.encoder.{name}" for name in ("size", "patch", "tubelet", "levels", "level_ends", "rotary")),
    *(name for name in ALL if name.endswith(".exponent")),
    *("config.ema.enabled", "config.target", "config.optim.name", "config.data.images"),
    *(
        f"config.data.sources.sprites.{name}"
        for name in ("kind", "weight", "frame_step", "target_fps", "window", "difficulty", "split", "fold", "clips")
    ),
]


def test_settings_that_determine_the_computation_are_fixed():
    assert {name for name in ALL if changes.kind(name) == "fixed"} == set(FIXED)


@pytest.mark.parametrize("pattern", changes.KINDS)
def test_every_pattern_matches_a_setting(pattern):
    assert fnmatch.filter([*ALL, *OF_FINE_TUNING], pattern)


def test_settings_of_fine_tuning_that_determine_the_computation_are_fixed():
    own = {name for name in OF_FINE_TUNING if changes.kind(name) == "fixed"} - {*FIXED}
    assert own == {
        *("config.head.kind", "config.head.heads", "config.head.blocks", "config.task", "config.holdout"),
        *("config.layer_decay", "config.freeze_blocks", "config.label_smoothing"),
    }


def test_adding_or_removing_an_objective_is_a_fixed_change():
    more = dataclasses.replace(
        CONFIG, objectives={**CONFIG.objectives, "delta": objectives.CLASSES["delta"](coefficient=0.5)}
    )
    for old, new in ((CONFIG, more), (more, CONFIG)):
        assert list(changes.between(old, new)) == ["fixed"]


def test_changes_that_affect_only_rounding_are_accepted_and_logged(tmp_path, caplog):
    workdir.open_workdir(tmp_path, CONFIG)
    encoder = dataclasses.replace(CONFIG.encoder, remat="full", scan=False, attention="fused")
    workdir.open_workdir(tmp_path, dataclasses.replace(CONFIG, encoder=encoder))
    for name, change in {"remat": "'none' → 'full'", "scan": "True → False", "attention": "'auto' → 'fused'"}.items():
        assert f"config.encoder.{name}: {change}. Results agree with the run so far up to rounding" in caplog.text


def test_run_from_before_auto_attention_resumes(tmp_path, caplog):
    workdir.open_workdir(
        tmp_path, dataclasses.replace(CONFIG, encoder=dataclasses.replace(CONFIG.encoder, attention="xla"))
    )
    workdir.open_workdir(tmp_path, CONFIG)
    assert "config.encoder.attention: 'xla' → 'auto'. Results agree with the run so far up to rounding" in caplog.text


def test_changes_that_do_not_affect_results_are_accepted_silently(tmp_path, caplog):
    workdir.open_workdir(tmp_path, CONFIG)
    data = dataclasses.replace(CONFIG.data, workers=7, path="elsewhere", root="elsewhere")
    workdir.open_workdir(tmp_path, dataclasses.replace(CONFIG, data=data, recipe="renamed", probe="probe.py"))
    assert not caplog.text


@pytest.mark.slow
def test_state_tree_does_not_depend_on_how_blocks_are_computed():
    """So each can restore the checkpoints of the others."""

    def initial(**encoder):
        setup = build_setup(dataclasses.replace(CONFIG, encoder=dataclasses.replace(CONFIG.encoder, **encoder)))
        return jax.eval_shape(lambda: init_state(setup, 0))

    expected = initial()
    for scan, remat, attention in itertools.product((True, False), typing.get_args(Remat), typing.get_args(Attention)):
        chex.assert_trees_all_equal_shapes_and_dtypes(initial(scan=scan, remat=remat, attention=attention), expected)
