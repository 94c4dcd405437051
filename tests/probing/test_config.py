import pathlib
import re
import runpy

import ml_collections
import pytest

from jepa_jax.config import ConfigError, SourceConfig, defaults, parse, to_config_dict
from jepa_jax.data import sprites
from jepa_jax.probing.config import EvalConfig, ProbeConfig

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "eval"
VIDEOS = SourceConfig(path="videos")


def found(source, path):
    """Whether a source keeps a file of this path."""
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
        ({"probes": {"a": {"tokens": "all"}}}, "config.probes.a: a linear probe reads one vector a clip"),
        ({"probes": {"a": {"kind": "knn", "tokens": "all"}}}, "a knn probe reads one vector"),
        ({"probes": {"a": {"epochs": 0}}}, "config.probes.a: epochs is 0; expected at least 1"),
        ({"probes": {"a": {"neighbours": 0}}}, "neighbours is (0,)"),
        ({"probes": {"a": {"lr": 0.0}}}, "lr is (0.0,)"),
        ({"batch_size": -1}, "batch_size is -1"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(EvalConfig, ml_collections.ConfigDict(settings))


def test_tokens_that_some_probe_reads():
    mean, every = ProbeConfig(), ProbeConfig(kind="attentive", tokens="all")
    assert EvalConfig(probes={"a": mean}).kinds_of_tokens == ("mean",)
    assert EvalConfig(probes={"a": every, "b": mean}).kinds_of_tokens == ("mean", "all")


@pytest.mark.parametrize("include", ["", "^a/", "x"])
@pytest.mark.parametrize("exclude", ["", "bad"])
@pytest.mark.parametrize("holdout", ["seq(3|4)", "^b/|seq1"])
def test_holdout_splits_what_the_source_keeps(include, exclude, holdout):
    whole = SourceConfig(path="videos", include=include, exclude=exclude)
    train, test = EvalConfig(train=whole, holdout=holdout).split_sources()
    paths = [f"{c}/{kind}_seq{n}.avi" for c in "ab" for kind in ("x", "y", "bad_x") for n in range(6)]
    kept = [path for path in paths if found(whole, path)]
    assert [path for path in paths if found(test, path)] == [path for path in kept if re.search(holdout, path)]
    assert [path for path in paths if found(train, path)] == [path for path in kept if not re.search(holdout, path)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EvalConfig(train=VIDEOS, test=VIDEOS), "are the same clips"),
        (EvalConfig(train=VIDEOS, holdout="seq("), "is no regular expression"),
        (EvalConfig(train=VIDEOS, test=SourceConfig(path="b"), holdout="x"), "leave config.test.path out"),
        (EvalConfig(train=SourceConfig(kind="sprites"), fold_by="x"), "config.fold_by: sprites have no paths"),
        (EvalConfig(train=SourceConfig(path="a"), fold_by="x", holdout="y"), "leave out config.holdout"),
        (EvalConfig(train=SourceConfig(path="a"), fold_by="("), "config.fold_by: '(' is no regular expression"),
        (EvalConfig(train=SourceConfig(kind="sprites"), holdout="x"), "sprites have no paths"),
    ],
)
def test_splits_that_are_none(config, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.split_sources()


@pytest.mark.parametrize("name", ["sprites", "sprites:small", "ut_interaction", "folder", "images"])
def test_config_files_parse(name):
    file, _, argument = name.partition(":")
    namespace = runpy.run_path(str(CONFIGS / f"{file}.py"))
    config = namespace["get_config"](*filter(None, [argument]))
    parsed = parse(EvalConfig, config)
    assert to_config_dict(parsed).probes == config.probes
    if argument:
        assert (parsed.frames, parsed.size) == sprites.SIZES[argument]
