"""The flag `--config`, `--config.KEY=VALUE` for every setting of that config, and errors about flags."""

import difflib
import pathlib
import re
import sys
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path, tuple_parser

from jepa_jax import config_files
from jepa_jax.cli import item_classes
from jepa_jax.cli.setting_paths import dotted, elsewhere, paths, unknown
from jepa_jax.settings import ConfigError

NAME = "config"
_EXPECTED: dict[type[flags.ArgumentParser], str] = {
    flags.IntegerParser: "a whole number",
    flags.FloatParser: "a number",
    flags.BooleanParser: "true or false",
    tuple_parser.TupleParser: 'values in brackets, as in "(1, 2)"',
}


def define(schema: type, description: str) -> flags.FlagHolder[ml_collections.ConfigDict]:
    """Defines `--config`: the path or name of a config, followed by a colon and its argument.

    Args:
        schema: the dataclass that the config is parsed into. Its registries determine which settings name a class.
        description: the help text.
    """
    parser = _Parser(schema)
    holder = config_flags.DEFINE_config_file(NAME, None, description, sys_argv=parser.arguments)
    flags.FLAGS[NAME].parser = parser
    return holder


def file() -> pathlib.Path:
    """Returns the config file, once flags are parsed."""
    found = config_files.find(config_flags.get_config_filename(flags.FLAGS[NAME]))
    assert found is not None
    return pathlib.Path(found.partition(":")[0])


def given(setting: str) -> bool:
    """Returns whether the command line has --config.SETTING."""
    return setting in config_flags.get_override_values(flags.FLAGS[NAME])


class _Parser(flags.ArgumentParser):
    """Loads the config at a path or with a name.

    Attributes:
        arguments: the command line without the settings that choose a class. ml_collections defines a flag for each
            --config.KEY there, which is impossible for the key `class` because it is a Python keyword.
    """

    def __init__(self, schema: type):
        self._schema = schema
        self.arguments: list[str] = []

    def parse(self, argument: str) -> ml_collections.ConfigDict:
        found = config_files.find(argument)
        if found is None:
            raise ConfigError(
                f"--config is {argument!r}: No such file or directory, and no config has this name."
                f"{config_files.known(argument)}"
            )
        config = config_files.load(found)
        chosen, overrides = self._read(flags.FLAGS.read_flags_from_files(sys.argv[1:], force_gnu=False))
        item_classes.complete(self._schema, config, chosen)
        for path, value in overrides:
            keys = config_path.split(path)
            problem = unknown(config, keys)
            if problem is not None:
                raise ConfigError(problem + item_classes.missing_class(self._schema, config, tuple(map(str, keys))))
            if problem := _whole_group(config, keys, value):
                raise ConfigError(problem)
        return config.lock()

    def _read(self, words: Sequence[str]) -> tuple[dict[item_classes.Keys, str], list[tuple[str, str]]]:
        """Returns the chosen classes by the keys of their items, and KEY and VALUE of every other --config.KEY=VALUE.

        VALUE is empty if it is a separate argument. Also sets `arguments`.
        """
        chosen, overrides = {}, []
        self.arguments[:] = sys.argv[:1]
        rest = iter(words)
        for word in rest:
            if word == "--":
                self.arguments += [word, *rest]
                break
            found = re.fullmatch(rf"--?(?:no)?{NAME}\.([^=]+)(=?)(.*)", word, re.DOTALL)
            item = item_classes.chosen_item(self._schema, found[1]) if found else None
            if found is None or item is None:
                self.arguments.append(word)
                overrides += [(found[1], found[3])] if found else []
                continue
            setting = f"{NAME}.{found[1]}"
            chosen[item] = found[3] if found[2] else next(rest, "")
            if not chosen[item]:
                raise ConfigError(f"--{setting} is empty; expected the name of a class.")
            if not any(re.match(rf"--?{NAME}(=|$)", word) for word in self.arguments):
                raise ConfigError(f"--{setting} comes before --{NAME}; put --{NAME} first.")
            if setting not in flags.FLAGS:
                flags.DEFINE_string(setting, None, "The class of this item.")
        return chosen, overrides


def _whole_group(config: ml_collections.ConfigDict, keys: Sequence[str | int], value: str) -> str | None:
    """Returns an error message if `value` would replace a whole group and is not a dict; None otherwise."""
    group = config
    for key in keys:
        if not isinstance(group, ml_collections.ConfigDict) or not isinstance(key, str):
            return None
        group = group[key]
    if not isinstance(group, ml_collections.ConfigDict) or value.startswith("{"):
        return None
    name = dotted(keys)
    settings = ", ".join(dotted([*keys, *path]) for path in paths(group))
    return f"{name} is a group of settings; set one of {settings}."


def explain(error: flags.Error) -> str:
    """Returns an error message that names the invalid argument and the reason."""
    if isinstance(error.__context__, ConfigError):
        return str(error.__context__)
    if isinstance(error, flags.UnrecognizedFlagError):
        return _no_such_flag(error.flagname)
    illegal = re.fullmatch(r"flag --(?P<name>[^=]+)=(?P<value>.*?): (?P<reason>.*)", str(error), re.DOTALL)
    if illegal is None or illegal["name"] not in flags.FLAGS:
        return str(error)
    parser = flags.FLAGS[illegal["name"]].parser
    expected = next((words for kind, words in _EXPECTED.items() if isinstance(parser, kind)), None)
    problem = illegal["reason"] if expected is None else f"expected {expected}{_bounds(parser)}"
    return f"--{illegal['name']} is {illegal['value']!r}; {problem}."


def _bounds(parser: flags.ArgumentParser) -> str:
    least, most = (getattr(parser, name, None) for name in ("lower_bound", "upper_bound"))
    bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
    return f" of {' and '.join(bounds)}" if bounds else ""


def _no_such_flag(typed: str) -> str:
    config = flags.FLAGS[NAME] if NAME in flags.FLAGS else None  # noqa: SIM401 (there is no get)
    if typed.startswith((f"{NAME}.", f"no{NAME}.")) and config is not None:
        if not config.present:
            return f"--{NAME} is missing: it names the config that --{typed} overrides."
        return f"--{typed}: only true/false settings can be negated with no…; write --{NAME}.KEY=VALUE."
    near = [f"--{name}" for name in difflib.get_close_matches(typed, list(flags.FLAGS), n=1, cutoff=0.75)]
    if config is not None and config.value is not None:
        near += [f"--{setting}" for setting in elsewhere(config.value, typed.split("."))[:3]]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"Unknown flag --{typed}.{hint}"
