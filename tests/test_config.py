"""Settings: parsing, error messages, recipes and the config files in `configs/`."""

import importlib.util
import json
import pathlib
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from jepa_jax import config_files, data, recipes
from jepa_jax.config import Config, defaults
from jepa_jax.settings import ConfigError, difference, parse, to_dict
from jepa_jax.training.setup import build_setup

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def get_config(name, *arguments):
    spec = importlib.util.spec_from_file_location(f"config_{name}", CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


def test_attention_is_auto_by_default_and_old_settings_are_read():
    assert Config().encoder.attention == "auto"
    assert parse(Config, {"encoder": {"attention": "xla"}}).encoder.attention == "xla"


def test_defaults_survive_a_config_dict_round_trip():
    assert parse(Config, defaults(Config)) == Config()
    assert parse(Config, to_dict(Config())) == Config()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepps": 3}, r"config\.stepps is not a setting\. Did you mean 'steps'\?"),
        ({"optim": {"peek_lr": 1.0}}, r"config\.optim\.peek_lr is not a setting\. Did you mean 'peak_lr'\?"),
        ({"masks": {"short": {"block": 1}}}, r"config\.masks\.short\.block is not a setting\. Did you mean 'blocks'\?"),
        (
            {"objectives": {"predicton": {}}},
            r"config\.objectives\.predicton: there is no 'predicton'\. Did you mean 'prediction'",
        ),
        ({"objectives": {"prediction": {"power": 2}}}, r"config\.objectives\.prediction\.power is not a setting"),
        ({"optim": 3}, r"config\.optim is 3; expected a group of settings"),
        ({"steps": 1.5}, r"config\.steps is 1\.5; expected int"),
        ({"steps": True}, r"config\.steps is True; expected int"),
        ({"dtype": "float16"}, r"config\.dtype is 'float16'; expected one of 'float32', 'bfloat16'"),
        ({"data": {"augment": {"crop_area": (1,)}}}, r"crop_area is \(1,\); expected 2 values"),
        ({"data": {"augment": {"crop_area": (0.5, 2.0)}}}, r"config\.data\.augment: crop_area is \(0\.5, 2\.0\)"),
        ({"steps": 0}, r"config: steps is 0; expected at least 1"),
        ({"ema": {"decay": 1.2}}, r"config\.ema: decay is 1\.2; expected a share in \[0, 1\]"),
        ({"checkpoint": {"keep": 0}}, r"config\.checkpoint: keep is 0; expected at least 1"),
        ({"masks": {}}, "masks is empty"),
        ({"clip": {"size": "96"}}, r"config\.clip\.size is '96'; expected int or \(int, int\)"),
        ({"clip": {"size": [96, 128, 3]}}, r"config\.clip\.size is \[96, 128, 3\]; expected int or \(int, int\)"),
        ({"clip": {"size": [96, 0.5]}}, r"config\.clip\.size is \[96, 0\.5\]; expected int or \(int, int\)"),
        ({"clip": {"size": [0, 96]}}, r"config\.clip: size is \(0, 96\); expected at least 1"),
        ({"encoder": {"level_ends": [3, 3]}}, r"config\.encoder: level_ends is \(3, 3\); expected increasing block"),
        ({"encoder": {"level_ends": [0, 3]}}, r"config\.encoder: level_ends is \(0, 3\); expected increasing block"),
        ({"data": {"sources": {"a": {"weight": float("nan")}}}}, "weight is nan; expected at least 0"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse(Config, settings)


def test_integers_are_valid_floats_and_lists_valid_tuples():
    config = parse(Config, {"optim": {"peak_lr": 1}, "data": {"augment": {"crop_area": [0.5, 1]}}})
    assert config.optim.peak_lr == 1.0
    assert config.data.augment.crop_area == (0.5, 1.0)


@pytest.mark.parametrize(
    ("size", "height", "width", "kept"),
    [(96, 96, 96, 96), ((96, 128), 96, 128, (96, 128)), ([96, 128], 96, 128, (96, 128)), ([64, 64], 64, 64, 64)],
)
def test_clip_size_is_one_number_or_height_and_width(size, height, width, kept):
    for settings in ({"clip": {"size": size}}, json.loads(json.dumps({"clip": {"size": size}}))):
        clip = parse(Config, settings).clip
        assert (clip.height, clip.width, clip.size) == (height, width, kept)
        assert clip.shape == (16, height, width, 3)
    config = defaults(Config)
    config.clip.size = tuple(size) if isinstance(size, list) else size
    assert parse(Config, config).clip == clip
    assert parse(Config, json.loads(json.dumps(to_dict(parse(Config, config))))).clip == clip


@pytest.mark.parametrize(("value", "size"), [("96", 96), ("(96, 128)", (96, 128)), ("[96,128]", (96, 128))])
def test_clip_size_flag_is_one_number_or_two(monkeypatch, value, size):
    monkeypatch.setattr(sys, "argv", ["train", f"--config.clip.size={value}"])
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_dict("config", defaults(Config), flag_values=values)
    values(sys.argv)
    assert parse(Config, holder.value).clip.size == size


def test_indivisible_clip_sizes_raise_with_the_nearest_valid_size():
    config = parse(Config, {"clip": {"frames": 5, "size": [90, 130]}})
    nearest = r"the nearest that do have 6 frames, 96×128 pixels"
    with pytest.raises(
        ConfigError, match=rf"config\.clip: clips of 5 frames, 90×130 pixels do not divide.*; {nearest}"
    ):
        build_setup(config)


def test_sprites_that_are_not_square_raise():
    config = parse(Config, {"clip": {"size": [96, 128]}, "data": {"sources": {"sprites": {"kind": "sprites"}}}})
    with pytest.raises(ConfigError, match=r"sprites: size is \(96, 128\), but sprites are square; use one number"):
        build_setup(config)


def test_level_ends_set_the_levels_of_the_encoder():
    config = parse(Config, {"encoder": {"size": "32x6x2", "level_ends": [2, 3, 6]}, "clip": {"size": 32}})
    assert config.encoder.levels == 3
    assert parse(Config, json.loads(json.dumps(to_dict(config)))) == config
    setup = build_setup(config)
    assert (setup.encoder.levels, setup.features) == (3, 96)
    with pytest.raises(
        ConfigError, match=r"config\.encoder: level_ends is \(2, 4\); expected the last to be the encoder's depth, 6"
    ):
        build_setup(parse(Config, {"encoder": {"size": "32x6x2", "level_ends": [2, 4]}}))


def test_difference_names_every_setting_that_differs():
    old = parse(Config, {"seed": 1, "data": {"sources": {"a": {"kind": "images"}}}})
    new = parse(Config, {"seed": 2, "data": {"sources": {"b": {"kind": "images"}}}})
    assert difference(old, old) == []
    lines = difference(old, new)
    assert "config.seed: 1 → 2" in lines
    assert any(line.startswith("config.data.sources.b: 'absent' →") for line in lines)
    assert len(lines) == 3


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_every_recipe_except_baseline_changes_settings(recipe):
    changed = parse(Config, recipes.apply(defaults(Config), recipe))
    assert changed.recipe == recipe
    assert (difference(Config(), changed) == []) == (recipe == "baseline")


def test_recipes_match_the_study():
    motion_future = parse(Config, recipes.apply(defaults(Config), "motion_future"))
    assert {name: (mask.blocks, mask.spatial_scale) for name, mask in motion_future.masks.items()} == {
        "short": (4, 0.15),
        "long": (1, 0.7),
    }
    assert {mask.temporal_keep for mask in motion_future.masks.values()} == {0.5}
    assert {mask.motion_strength for mask in motion_future.masks.values()} == {2.0}
    assert not parse(Config, recipes.apply(defaults(Config), "baseline_no_ema")).ema.enabled


def test_misspelled_recipe_raises_with_a_suggestion():
    with pytest.raises(
        recipes.NoSuchRecipeError,
        match=r"Unknown recipe 'motion_gided'\. Did you mean 'motion_guided'\? Recipes:\n  baseline ",
    ):
        recipes.apply(defaults(Config), "motion_gided")


@pytest.mark.parametrize("name", ["quickstart", "folder", "ucf101", "mixed", "directions"])
def test_help_lists_every_recipe(name, capsys):
    with pytest.raises(SystemExit) as stop:
        get_config(name, "help")
    assert stop.value.code == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == list(recipes.RECIPES)


def test_any_objective_can_be_set_in_any_recipe():
    config = get_config("mixed", "fwm")
    config.objectives.latent_dynamics.coefficient = 0.5
    config.objectives.context_prediction.coefficient = 0.0
    coefficients = {name: objective.coefficient for name, objective in parse(Config, config).objectives.items()}
    assert coefficients == {
        "prediction": 1.0,
        "factorization_static": 0.05,
        "factorization_orthogonality": 0.01,
        "latent_dynamics": 0.5,
    }


@pytest.mark.parametrize("name", ["quickstart", "folder", "ucf101", "mixed", "directions"])
def test_config_files_build_a_setup(name):
    config = parse(Config, get_config(name))
    setup = build_setup(config)
    assert all(
        0 < mask.context < mask.context + mask.target <= setup.grid[0] * setup.grid[1] ** 2 for mask in setup.masks
    )
    assert abs(sum(s.weight for s in config.data.sources.values()) - 1) < 1e-6
    assert data.renders_in_step(config.data) == (name in ("quickstart", "directions"))


@pytest.mark.parametrize(
    ("recipe", "target", "objective"),
    [
        ("kinematic", "online", "kinematic"),
        ("baseline", "ema", None),
        ("sigreg_no_ema", "online", "sigreg"),
        ("sigreg", "ema", "sigreg"),
    ],
)
def test_directions_config_has_the_settings_of_the_study(recipe, target, objective):
    config = parse(Config, get_config("directions", recipe))
    assert (config.steps, config.batch_size, config.optim.warmup_steps) == (100 * 50, 16, 50)
    assert config.clip.shape == (8, 128, 128, 3)
    assert {source.kind for source in config.data.sources.values()} == {"moving_discs"}
    assert config.target == target
    added = {name: o.coefficient for name, o in config.objectives.items() if "prediction" not in name}
    assert added == ({objective: 1.0} if objective else {})
    assert config_files.find(config.probe)


def test_directions_config_is_kinematic_by_default():
    assert get_config("directions").recipe == "kinematic"


@pytest.mark.parametrize(
    ("encoder", "size"),
    [
        ("vit_base", "768x12x12"),
        ("vit_large", "1024x24x16"),
        ("vit_huge", "1280x32x16"),
        ("vit_giant", "1408x40x22x6144"),
        ("vit_gigantic", "1664x48x26x8192"),
    ],
)
def test_vjepa2_config_has_the_released_sizes(encoder, size):
    config = parse(Config, get_config("vjepa2", encoder))
    setup = build_setup(config)
    assert str(setup.encoder.size) == size
    assert setup.grid == (8, 16, 16)
    assert config.batch_size == 3072
    assert set(config.objectives) == {"prediction"}


def test_data_root_sets_the_paths_of_all_sources():
    config = get_config("mixed")
    config.data.root = "elsewhere"
    paths = {name: source.path for name, source in parse(Config, config).data.sources.items()}
    assert paths == {
        "ucf101": "elsewhere/ucf101",
        "ssv2": "elsewhere/something_something_v2",
        "imagenet100": "elsewhere/imagenet100",
    }


def test_full_size_configs_match_the_study():
    for name in ("ucf101", "mixed"):
        config = parse(Config, get_config(name))
        assert (config.steps, config.batch_size, config.clip.frames, config.clip.size) == (30_000, 32, 16, 224)
        assert config.ema.decay == 0.99925
        setup = build_setup(config)
        assert setup.grid == (8, 14, 14)
        assert setup.features == 3072


def test_objectives_with_different_channel_splits_raise():
    config = recipes.apply(defaults(Config), "fwm_ld")
    config.objectives.factorization_static.split = "per_level"
    with pytest.raises(ConfigError, match=r"factorization_static by 'per_level'.*expected the same in"):
        parse(Config, config)
    for name in ("factorization_orthogonality", "latent_dynamics"):
        config.objectives[name].split = "per_level"
    parse(Config, config)
    config.objectives.action.coefficient = 1.0  # its head reads all channels
    parse(Config, config)
