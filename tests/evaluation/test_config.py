import pathlib
import re
import runpy

import ml_collections
import pytest

from jepa_jax.config import SourceConfig, ViewsConfig, defaults
from jepa_jax.data import sprites
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.settings import ConfigError, parse, to_config_dict

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "eval"
VIDEOS = SourceConfig(path="videos")


def keeps(source, path):
    """Whether a source keeps the file with this path."""
    included = not source.include or re.search(source.include, path)
    return bool(included and not (source.exclude and re.search(source.exclude, path)))


def test_config_files_start_from_defaults_and_parse_back():
    assert parse(EvalConfig, defaults(EvalConfig)) == EvalConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probs": {}}, "config.probs is not a setting. Did you mean 'probes'"),
        ({"probes": {"linear": {"epoch": 3}}}, "config.probes.linear.epoch is not a setting. Did you mean 'epochs'"),
        ({"probes": {}}, "probes is empty"),
        ({"probes": {"a": {"kind": "mlp"}}}, "config.probes.a.kind is 'mlp'; expected one of 'linear'"),
        ({"probes": {"a": {"tokens": "all"}}}, "config.probes.a: a linear probe reads one vector per clip"),
        ({"probes": {"a": {"kind": "knn", "tokens": "all"}}}, "a knn probe reads one vector"),
        ({"probes": {"a": {"epochs": 0}}}, "config.probes.a: epochs is 0; expected at least 1"),
        ({"probes": {"a": {"neighbours": 0}}}, "neighbours is (0,)"),
        ({"probes": {"a": {"lr": 0.0}}}, "lr is (0.0,)"),
        ({"probes": {"a": {"lr": ()}}}, "lr is (); expected one or more different numbers above 0"),
        ({"probes": {"a": {"weight_decay": (0.1, 0.1)}}}, "weight_decay is (0.1, 0.1)"),
        ({"probes": {"a": {"lr": (0.1, "b")}}}, "config.probes.a.lr[1] is 'b'; expected float"),
        ({"probes": {"a": {"validation": 1.0}}}, "validation is 1.0"),
        ({"probes": {"a": {"micro_batch": 3}}}, "micro_batch is 3; expected 0 or a divisor of 256"),
        ({"views": {"clips": 2}}, "config.views: clips is 2, but frame_step is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"size": (16, 0)}, "size is (16, 0); expected at least 1"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(EvalConfig, ml_collections.ConfigDict(settings))


def test_kinds_of_features_are_those_that_the_probes_read():
    mean, every = ProbeConfig(), ProbeConfig(kind="attentive", tokens="all")
    assert EvalConfig(probes={"a": mean}).kinds_of_features == ("mean",)
    assert set(EvalConfig(probes={"a": every, "b": mean}).kinds_of_features) == {"mean", "all"}


def test_holdout_matches_paths_with_line_breaks():
    test = EvalConfig(train=SourceConfig(path="x", include="a"), holdout="seq1").split_sources()[1]
    assert re.search(test.include, "a\nb/seq1.mp4")
    assert not re.search(test.include, "b\nb/seq1.mp4")


@pytest.mark.parametrize("include", ["", "^a/", "x"])
@pytest.mark.parametrize("exclude", ["", "bad"])
@pytest.mark.parametrize("holdout", ["seq(3|4)", "^b/|seq1"])
def test_holdout_splits_the_files_that_the_source_keeps(include, exclude, holdout):
    whole = SourceConfig(path="videos", include=include, exclude=exclude)
    train, test = EvalConfig(train=whole, holdout=holdout).split_sources()
    paths = [f"{c}/{kind}_seq{n}.avi" for c in "ab" for kind in ("x", "y", "bad_x") for n in range(6)]
    kept = [path for path in paths if keeps(whole, path)]
    assert [path for path in paths if keeps(test, path)] == [path for path in kept if re.search(holdout, path)]
    assert [path for path in paths if keeps(train, path)] == [path for path in kept if not re.search(holdout, path)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EvalConfig(train=VIDEOS, test=VIDEOS), "are the same clips"),
        (EvalConfig(train=VIDEOS, holdout="seq("), "is not a regular expression"),
        (EvalConfig(train=VIDEOS, test=SourceConfig(path="b"), holdout="x"), "leave config.test.path empty"),
        (EvalConfig(train=SourceConfig(kind="sprites"), fold_by="x"), "config.fold_by: sprites have no paths"),
        (
            EvalConfig(train=SourceConfig(path="a"), fold_by="x", holdout="y"),
            "leave config.holdout and config",
        ),
        (EvalConfig(train=SourceConfig(path="a"), fold_by="("), "config.fold_by: '(' is not a regular expression"),
        (EvalConfig(train=SourceConfig(kind="sprites"), holdout="x"), "sprites have no paths"),
    ],
)
def test_invalid_splits_raise(config, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.split_sources()


def load(name):
    file, _, argument = name.partition(":")
    return runpy.run_path(str(CONFIGS / f"{file}.py"))["get_config"](*filter(None, [argument]))


# Kind, tokens, epochs, batch, rate: the frozen evaluation of arXiv:2605.17165, AdamW with decay 0.01 everywhere.
PAPER = {
    "diving48": ("diving48", "attentive", "all", 100, 16, 1e-3),
    "ssv2": ("something_something_v2", "attentive", "mean", 100, 16, 1e-3),
    "imagenet100": ("imagenet100", "linear", "mean", 50, 256, 1e-3),
    "ucf101": ("ucf101", "attentive", "all", 100, 16, 3e-4),
}


@pytest.mark.parametrize("name", PAPER)
def test_default_protocol_matches_the_paper(name):
    config = load(name)
    config.data.root = "elsewhere"
    parsed = parse(EvalConfig, config)
    ((_, probe),) = parsed.probes.items()
    folder, kind, tokens, epochs, batch, rate = PAPER[name]
    assert parsed.dtype == "float32"
    assert (probe.kind, probe.tokens, probe.epochs, probe.batch_size) == (kind, tokens, epochs, batch)
    assert probe.settings() == ({"lr": rate, "weight_decay": 0.01},)
    assert (probe.schedule, probe.heads, probe.seeds, probe.standardise) == ("constant", 8, 3, False)
    assert parsed.views == ViewsConfig()
    assert (parsed.train.path, parsed.test.path) == (f"elsewhere/{folder}", f"elsewhere/{folder}")
    assert (parsed.train.split, parsed.test.split) == ("train", "test")
    assert parse(EvalConfig, load(f"{name}:paper")) == parse(EvalConfig, load(name))


@pytest.mark.parametrize(
    ("name", "views"), [("diving48", (4, 3)), ("ssv2", (2, 3)), ("imagenet100", (1, 1)), ("ucf101", (8, 3))]
)
def test_vjepa2_protocol(name, views):
    parsed = parse(EvalConfig, load(f"{name}:vjepa2"))
    ((_, probe),) = parsed.probes.items()
    assert (probe.kind, probe.heads, probe.blocks) == ("attentive_blocks", 16, 4)
    if name == "diving48":
        assert probe.tokens == "all stacked levels"
        assert probe.settings() == tuple({"lr": lr, "weight_decay": 0.8} for lr in (1e-3, 3e-4, 1e-4))
    else:
        assert probe.tokens == "all"
        assert len(probe.settings()) == 20
    assert 0 < probe.validation <= 0.1
    assert (parsed.views.clips, parsed.views.crops) == views


@pytest.mark.parametrize(
    ("kind", "tokens", "features"),
    [
        ("linear", "level 2", "mean_level_2"),
        ("logistic", "levels", "mean_levels"),
        ("knn", "mean level 1", "mean_level_1"),
        ("attentive", "level 2", "all_level_2"),
        ("attentive", "frames level 3", "frames_level_3"),
        ("attentive_blocks", "stacked levels", "all_stacked_levels"),
    ],
)
def test_probes_can_read_any_level(kind, tokens, features):
    assert ProbeConfig(kind=kind, tokens=tokens).features == features


@pytest.mark.parametrize(
    ("kind", "tokens", "message"),
    [
        ("attentive", "level 0", "tokens is 'level 0'; expected 'mean', 'frames' or 'all'"),
        ("attentive", "most", "tokens is 'most'; expected"),
        (
            "ridge",
            "all level 2",
            "a ridge probe reads one vector per clip; tokens is 'all level 2'; expected 'mean', ",
        ),
        ("linear", "stacked levels", "a linear probe reads one vector per clip"),
    ],
)
def test_invalid_tokens_raise(kind, tokens, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ProbeConfig(kind=kind, tokens=tokens)


def test_unknown_protocol_raises_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"'vjepa' is not a protocol\. Did you mean 'vjepa2'"):
        load("ssv2:vjepa")


def test_single_value_becomes_a_grid_of_one():
    settings = {"probes": {"a": {"lr": 0.1, "neighbours": (1, 5)}}}
    probe = parse(EvalConfig, ml_collections.ConfigDict(settings)).probes["a"]
    assert (probe.lr, probe.neighbours) == ((0.1,), (1, 5))


@pytest.mark.parametrize("name", ["sprites", "sprites:small", "ut_interaction", "folder", "images", "directions"])
def test_config_files_parse(name):
    config, argument = load(name), name.partition(":")[2]
    parsed = parse(EvalConfig, config)
    assert to_config_dict(parsed).probes == config.probes
    if argument:
        assert (parsed.frames, parsed.size) == sprites.SIZES[argument]


@pytest.mark.parametrize(
    ("variant", "kind", "train", "test"),
    [
        ("paper", "directions", 160, 40),
        ("large", "directions", 2000, 2000),
        ("wrapped", "directions_wrapped", 2000, 2000),
    ],
)
def test_directions_evaluation_has_the_settings_of_the_study(variant, kind, train, test):
    config = parse(EvalConfig, load(f"directions:{variant}"))
    assert (config.frames, config.size, config.dtype) == (8, 160, "float32")
    assert [(source.kind, source.clips) for source in config.split_sources()] == [(kind, train), (kind, test)]
    (probe,) = config.probes.values()
    assert (probe.kind, probe.tokens, probe.epochs, probe.batch_size) == ("attentive", "all", 100, 32)
    assert (probe.lr, probe.weight_decay, probe.schedule) == ((3e-4,), (0.01,), "constant")
    assert config.beside_untrained
    assert config.controls == ("first frame", "one frame")


def test_unknown_variant_of_directions_raises():
    with pytest.raises(ConfigError, match=r"'larger' is not a variant.*Did you mean 'large'"):
        load("directions:larger")
