"""Registry items: registered classes and import paths, in nested groups, config files and on the command line."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
import tiny_run

from jepa_jax.cli import item_classes
from jepa_jax.config import Config
from jepa_jax.objectives.channel_split import ChannelSplit
from jepa_jax.settings import ConfigError, Inline, Registry, difference, parse, registries, to_config_dict, to_dict

PACKAGE = '''
import dataclasses

import jax.numpy as jnp

from jepa_jax.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norm(base.Objective):
    """The mean of a power of the visible tokens."""

    power: int = 2
    only_first: bool = False

    def view_value(self, head, view, latents):
        return (jnp.abs(view.context_BxKxD) ** self.power).mean()


class Plain:
    """Not a dataclass."""


class Undecorated(base.Objective):
    """Inherits from a dataclass, but is not decorated."""

    power: int = 2


@dataclasses.dataclass(frozen=True)
class Other:
    """Not an objective."""

    coefficient: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demanding(base.Objective):
    """Has a setting without default."""

    power: int


def function():
    """Not a class."""
'''
MINE = {"class": "my_pkg.norm:Norm", "coefficient": 0.5}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of my_pkg, an importable package outside this repository."""
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "__init__.py").touch()
    (tmp_path / "my_pkg" / "norm.py").write_text(PACKAGE)
    (tmp_path / "my_pkg" / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]


def test_objective_by_import_path_survives_a_round_trip(package):
    settings = tiny_run.SETTINGS | {"objectives": {"prediction": {}, "mine": MINE | {"power": 3}}}
    config = parse(Config, settings)
    mine = config.objectives["mine"]
    assert (type(mine).__name__, mine.coefficient, mine.power) == ("Norm", 0.5, 3)
    written = json.loads(json.dumps(to_dict(config)))
    assert written["objectives"]["mine"] == {
        "class": "my_pkg.norm:Norm",
        "coefficient": 0.5,
        "schedule": {"shape": "constant", "start": 0.0, "end": 1.0},
        "power": 3,
        "only_first": False,
    }
    assert "class" not in written["objectives"]["prediction"]
    assert parse(Config, written) == config
    assert parse(Config, to_config_dict(config)) == config
    other = parse(Config, tiny_run.SETTINGS | {"objectives": {"prediction": {}, "mine": MINE}})
    assert difference(config, other) == ["config.objectives.mine.power: 3 → 2"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_pkg.nrm:Norm", r"cannot be imported \(ModuleNotFoundError: No module named 'my_pkg\.nrm'\)\. Install its"),
        ("my_pkg.norm:Nrm", r"cannot be imported \(AttributeError: .*Nrm.*\)\. .*PYTHONPATH"),
        ("my_pkg.norm:", r"cannot be imported"),
        (":Norm", r"cannot be imported"),
        ("my_pkg.broken:Norm", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("my_pkg.norm:Plain", r"is not a dataclass\. Decorate it with @dataclasses\.dataclass\(frozen=True, kw_only=T"),
        ("my_pkg.norm:Undecorated", r"is not a dataclass\. Decorate it"),
        ("my_pkg.norm:function", r"is not a dataclass"),
        ("my_pkg.norm:Other", r"does not inherit from jepa_jax\.objectives\.base\.Objective\."),
        ("my_pkg.norm:Demanding", r"has no default for its setting power\. Give every field a default\."),
    ],
)
def test_classes_that_are_not_objectives_raise(package, name, message):
    with pytest.raises(ConfigError, match=rf"^config\.objectives\.mine\.class is '{name}', which {message}"):
        parse(Config, {"objectives": {"mine": {"class": name}}})


def test_unknown_objective_raises_with_advice_on_import_paths():
    with pytest.raises(ConfigError, match=r"objectives\.mine\.class: there is no 'dleta'\. Did you mean 'delta'\?.*"):
        parse(Config, {"objectives": {"mine": {"class": "dleta"}}})
    with pytest.raises(ConfigError, match=r"name its import path: class=my_package\.my_module:MyClass\."):
        parse(Config, {"objectives": {"mine": {"coefficient": 1.0}}})


def test_invalid_settings_of_an_external_class_raise(package):
    with pytest.raises(ConfigError, match=r"config\.objectives\.mine\.powr is not a setting\. Did you mean 'power'\?"):
        parse(Config, {"objectives": {"mine": MINE | {"powr": 3}}})
    with pytest.raises(ConfigError, match=r"config\.objectives\.mine\.power is 'x'; expected int"):
        parse(Config, {"objectives": {"mine": MINE | {"power": "x"}}})


OLDER_RUN = {
    "prediction": {"coefficient": 1.0, "schedule": {"shape": "constant", "start": 0.0, "end": 1.0}, "exponent": 1.0},
    "factorization_static": {
        "coefficient": 0.05,
        "schedule": {"shape": "constant", "start": 0.0, "end": 1.0},
        "appearance_share": 0.25,
        "split": "per_level",
    },
    "latent_dynamics": {
        "coefficient": 1.0,
        "schedule": {"shape": "constant", "start": 0.0, "end": 1.0},
        "appearance_share": 0.25,
        "split": "per_level",
        "channels": "dynamics",
        "hidden": 256,
        "weighting": "hard",
        "temperature": 1.0,
    },
}


def test_recorded_channel_split_survives_a_round_trip():
    config = parse(Config, {"objectives": OLDER_RUN})
    assert config.objectives["factorization_static"].channel_split == ChannelSplit(
        appearance_share=0.25, split="per_level"
    )
    assert config.objectives["latent_dynamics"].channel_split.channels == "dynamics"
    written = to_dict(config)["objectives"]
    assert written["factorization_static"].pop("relative") is False  # a newer setting
    assert written == OLDER_RUN
    assert [list(item) for item in written.values()] == [list(item) for item in OLDER_RUN.values()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    least: int = 0
    most: int = 9

    def __post_init__(self):
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, most {self.most}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    size: int = 8
    range: Annotated[Range, Inline] = dataclasses.field(default_factory=Range)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    share: float = 0.5
    step: int = 1


KINDS = {"block": Block, "random_tokens": Tokens}
MASKS = Registry(f"{__name__}:KINDS", key="kind", default="block")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    masks: Annotated[Mapping[str, Any], MASKS] = dataclasses.field(default_factory=lambda: {"short": Block()})
    test: Annotated[Any, MASKS] = dataclasses.field(default_factory=Block)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema:
    data: Inner = dataclasses.field(default_factory=Inner)


def test_registries_in_nested_groups_and_of_single_items():
    assert registries(Schema) == {("data", "masks", "*"): MASKS, ("data", "test"): MASKS}
    settings = {
        "data": {"masks": {"a": {"kind": "random_tokens", "share": 0.9}, "b": {"size": 4}}, "test": {"size": 2}}
    }
    schema = parse(Schema, settings)
    assert schema.data.masks == {"a": Tokens(share=0.9), "b": Block(size=4)}
    assert schema.data.test == Block(size=2)
    written = to_dict(schema)
    assert written["data"]["masks"]["a"] == {"kind": "random_tokens", "share": 0.9, "step": 1}
    assert written["data"]["test"] == {"size": 2, "least": 0, "most": 9}
    assert parse(Schema, written) == schema
    with pytest.raises(ConfigError, match=r"config\.data\.masks\.a\.kind: there is no 'blok'\. Did you mean 'block'"):
        parse(Schema, {"data": {"masks": {"a": {"kind": "blok"}}}})


def test_inline_settings_belong_to_the_enclosing_group():
    assert parse(Schema, {"data": {"test": {"most": 3}}}).data.test == Block(range=Range(most=3))
    with pytest.raises(ConfigError, match=r"^config\.data\.test: least is 5, most 3"):
        parse(Schema, {"data": {"test": {"least": 5, "most": 3}}})
    with pytest.raises(ConfigError, match=r"config\.data\.test\.range is not a setting.*least, most, size"):
        parse(Schema, {"data": {"test": {"range": {}}}})


def test_choosing_another_class_resets_the_item_to_its_defaults():
    config = to_config_dict(Schema())
    config.data.masks.short.size = 3
    chosen = {
        ("data", "masks", "short"): "random_tokens",
        ("data", "test"): "random_tokens",
        ("data", "masks", "x"): "block",
    }
    item_classes.complete(Schema, config, chosen)
    assert config.data.masks.to_dict() == {
        "short": {"kind": "random_tokens", "share": 0.5, "step": 1},
        "x": {"kind": "block", "size": 8, "least": 0, "most": 9},
    }
    assert config.data.test.to_dict() == {"kind": "random_tokens", "share": 0.5, "step": 1}


def test_choosing_the_same_class_keeps_the_settings_of_the_config_file():
    config = to_config_dict(Schema())
    config.data.masks.short.size = 3
    item_classes.complete(Schema, config, {("data", "masks", "short"): "block"})
    assert config.data.masks.short.to_dict() == {"kind": "block", "size": 3, "least": 0, "most": 9}


def test_items_of_a_config_file_are_completed_with_defaults():
    config = to_config_dict(Schema())
    config.data.masks.short = {"kind": "random_tokens", "share": 0.75}
    item_classes.complete(Schema, config, {})
    assert config.data.masks.short.to_dict() == {"kind": "random_tokens", "share": 0.75, "step": 1}


def test_settings_that_choose_a_class_are_recognised():
    assert item_classes.chosen_item(Schema, "data.masks.short.kind") == ("data", "masks", "short")
    assert item_classes.chosen_item(Schema, "data.test.kind") == ("data", "test")
    assert item_classes.chosen_item(Config, "objectives.mine.class") == ("objectives", "mine")
    for other in ("data.masks.short.size", "data.kind", "data.masks.kind", "data.test.x.kind", "kind"):
        assert item_classes.chosen_item(Schema, other) is None


CONFIG_FILE = """
from jepa_jax.config import Config
from jepa_jax.settings import parse, to_config_dict

def get_config(which="plain"):
    config = to_config_dict(parse(Config, {settings}))
    if which == "mine":
        config.objectives.mine = {"class": "my_pkg.norm:Norm", "coefficient": 0.25}
    return config
"""
PRINT_OBJECTIVES = """
import json
from jepa_jax.cli import command_line, config_flag
from jepa_jax.config import Config
from jepa_jax.settings import ConfigError, parse, to_dict

CONFIG = config_flag.define(Config, "A config.")

def main(arguments):
    print(json.dumps(to_dict(parse(Config, CONFIG.value))["objectives"]))
    return 0

command_line.run(main, "config")
"""
ROOT = pathlib.Path(__file__).parents[1]


def python(folder, *arguments):
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    paths = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=kept | paths, capture_output=True, text=True, timeout=600
    )


@pytest.fixture
def parsed(package, forks):
    """parsed(*flags, argument=""): the objectives that a command line sets, or the error it prints."""
    (package / "tiny.py").write_text(CONFIG_FILE.replace("{settings}", repr(tiny_run.SETTINGS)))
    (package / "print_objectives.py").write_text(PRINT_OBJECTIVES)

    def run(*flags, argument=""):
        ended = forks.run("print_objectives", f"--config=tiny.py{argument}", *flags, cwd=package)
        assert "Traceback" not in ended.stderr, ended.stderr
        return json.loads(ended.stdout) if ended.returncode == 0 else ended.stderr

    return run


def test_command_line_adds_an_objective_by_its_class(parsed):
    flags = ["--config.objectives.mine.coefficient=0.5", "--config.objectives.mine.class=my_pkg.norm:Norm"]
    objectives = parsed(*flags, "--config.objectives.mine.power=3", "--config.objectives.mine.only_first")
    mine = objectives.pop("mine")
    assert (mine["class"], mine["coefficient"], mine["power"], mine["only_first"]) == (MINE["class"], 0.5, 3, True)
    assert objectives.keys() == {"prediction", "context_prediction"}
    spaced = parsed("--config.objectives.mine.class", "my_pkg.norm:Norm", "--config.objectives.mine.power", "4")
    assert (spaced["mine"]["coefficient"], spaced["mine"]["power"]) == (1.0, 4)


@pytest.mark.slow
def test_command_line_replaces_the_class_of_an_objective(parsed):
    objectives = parsed("--config.objectives.prediction.class=delta", "--config.objectives.prediction.coefficient=2")
    assert objectives["prediction"]["class"] == "delta"
    assert objectives["prediction"]["coefficient"] == 2.0
    assert "exponent" not in objectives["prediction"]


@pytest.mark.slow
def test_flags_override_an_objective_of_the_config_file(parsed):
    flags = ["--config.objectives.mine.power=5", "--config.objectives.mine.schedule.shape=cosine"]
    mine = parsed(*flags, argument=":mine")["mine"]
    assert (mine["coefficient"], mine["power"], mine["schedule"]["shape"]) == (0.25, 5, "cosine")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config.objectives.mine.coefficient=1"],
            "config.objectives.mine is not a setting. Known in config.objectives: context_prediction, prediction. "
            "To add it, choose its class with --config.objectives.mine.class=…",
        ),
        (
            ["--config.objectives.mine.class=my_pkg.norm:Nrm"],
            "Error: config.objectives.mine.class is 'my_pkg.norm:Nrm', which cannot be imported (AttributeError",
        ),
        (["--config.objectives.mine.class="], "--config.objectives.mine.class is empty; expected the name of a class."),
    ],
)
def test_invalid_class_on_the_command_line_prints_an_error(parsed, flags, message):
    assert message in parsed(*flags)


EVALUATION = """
from jepa_jax.config import SourceConfig, defaults
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.settings import to_config_dict

def get_config():
    config = defaults(EvalConfig)
    config.train = to_config_dict(SourceConfig(kind="sprites", split="train", clips=32))
    config.test = to_config_dict(SourceConfig(kind="sprites", split="test", clips=16))
    config.beside_untrained = False
    return config
"""


@pytest.mark.slow
def test_run_with_an_external_objective_is_trained_resumed_and_evaluated(package):
    (package / "tiny.py").write_text(CONFIG_FILE.replace("{settings}", repr(tiny_run.SETTINGS)))
    mine = ["--config.objectives.mine.class=my_pkg.norm:Norm", "--config.objectives.mine.coefficient=0.5"]
    train = ["-m", "jepa_jax.train", "--config=tiny.py", "--workdir=run", "--config.steps=2", *mine]
    trained = python(package, *train)
    assert trained.returncode == 0, trained.stderr
    lines = [json.loads(line) for line in (package / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["loss/mine"] > 0 for line in lines)
    assert json.loads((package / "run" / "config.json").read_text())["objectives"]["mine"]["class"] == MINE["class"]
    resumed = python(package, *train)
    assert "nothing to do" in resumed.stdout, resumed.stderr
    changed = python(package, *train, "--config.objectives.mine.power=3")
    assert "config.objectives.mine.power: 2 → 3" in changed.stderr
    (package / "few.py").write_text(EVALUATION)
    evaluated = python(package, "-m", "jepa_jax.evaluate", "--config=few.py", "--checkpoint=run", "--out=results.json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert (package / "results.json").exists()
