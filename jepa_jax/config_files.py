"""Config files, by path (`my_run.py:RECIPE`) or by name (`quickstart`, `eval/sprites`, `mixed:fwm_hw_ld`).

Named configs are the files of `configs/`: beside this package in a checkout, inside it when installed. The text after
the colon is the argument of the file's `get_config`.
"""

import contextlib
import importlib.machinery
import importlib.util
import inspect
import pathlib
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from jepa_jax.settings import ConfigError, nearest

_PACKAGE = pathlib.Path(__file__).parent
CONFIGS = next((f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir()), _PACKAGE / "configs")


def names() -> list[str]:
    """Returns the names of all configs of this package."""
    return sorted(file.relative_to(CONFIGS).with_suffix("").as_posix() for file in CONFIGS.rglob("*.py"))


def find(reference: str, beside: pathlib.Path | None = None) -> str | None:
    """Returns FILE[:ARGUMENT] for a path or name [:ARGUMENT]; None if the config does not exist.

    Args:
        reference: a path or a name; `configs/NAME.py` is a name too. An existing path in the current folder takes
            precedence over a name.
        beside: the config file with the reference. If given, the order is: a path relative to this file's folder, a
            name, a path in the current folder.
    """
    path, colon, argument = reference.partition(":")
    if not path:
        return None
    here, named = pathlib.Path(path), CONFIGS / f"{path.removeprefix('configs/').removesuffix('.py')}.py"
    candidates = [here, named] if beside is None else [beside.parent / path, named, here]
    file = next((file for file in candidates if file.is_file()), None)
    return None if file is None else f"{file}{colon}{argument}"


def known(reference: str) -> str:
    """Returns the rest of an error message about a missing config: the nearest name and the list of all."""
    return nearest(reference.partition(":")[0].removesuffix(".py"), names())


def shorten(reference: str) -> str:
    """Returns NAME[:ARGUMENT] for FILE[:ARGUMENT]; unchanged without a name or if the name is a file here."""
    path, colon, argument = reference.partition(":")
    file = pathlib.Path(path)
    if not file.resolve().is_relative_to(CONFIGS.resolve()):
        return reference
    name = file.resolve().relative_to(CONFIGS.resolve()).with_suffix("").as_posix()
    return reference if pathlib.Path(name).is_file() else f"{name}{colon}{argument}"


def load(reference: str) -> Any:
    """Returns the ConfigDict that `get_config` of FILE[:ARGUMENT] returns.

    Raises:
        ConfigError: `get_config` is missing, takes no argument or needs one, or fails. The message names the line.
        OSError: the file cannot be read.
    """
    path, colon, argument = reference.partition(":")
    with _errors_located(path):
        get_config = getattr(_module(path), "get_config", None)
    if get_config is None:
        raise ConfigError(f"{path} is not a config: it has no function get_config.")
    arguments = [argument] if colon else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        given = f"takes no argument, but {argument!r} follows the colon" if colon else "needs an argument after a colon"
        raise ConfigError(f"{path} {given}.") from None
    with _errors_located(path):
        return get_config(*arguments)


def load_named(name: str) -> Any:
    """Returns the ConfigDict of a config of this package, NAME[:ARGUMENT], for configs that start from another one."""
    path, colon, argument = name.partition(":")
    return load(f"{CONFIGS / path}.py{colon}{argument}")


@contextlib.contextmanager
def _errors_located(path: str) -> Iterator[None]:
    """Converts other errors to ConfigError with the line of the config file."""
    try:
        yield
    except ConfigError:
        raise
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: {error.msg}.") from error
    except (AttributeError, ImportError, KeyError, NameError, TypeError, ValueError) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"{path}:{lines[-1]}" if lines else path
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error


def _module(path: str) -> ModuleType:
    # An explicit loader, because a config may have any suffix.
    loader = importlib.machinery.SourceFileLoader("config_file", path)
    spec = importlib.util.spec_from_loader("config_file", loader)
    assert spec is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
