"""The lists that come with a set: found where they usually lie; what is wrong in them is said with its place."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jepa_jax import config
from jepa_jax.preparation.raw import PrepareError


def find(root: pathlib.Path, *names: str) -> pathlib.Path:
    """The first of these files or folders below `root` that is there.

    Raises:
        PrepareError: none is.
    """
    if not root.is_dir():
        raise PrepareError(f"--source: there is no folder {root}.")
    for name in names:
        if (root / name).exists():
            return root / name
    others = f" (or {', '.join(names[1:])})" if names[1:] else ""
    raise PrepareError(f"{root} lacks {names[0]}{others}.")


def read_lines(file: pathlib.Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of the lines with something on them.

    Raises:
        PrepareError: the file is no text.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PrepareError(f"{file} cannot be read: {error}.") from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def read_json(file: pathlib.Path, kind: type) -> Any:
    """A list or a dict.

    Raises:
        PrepareError: the file is no JSON, or something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrepareError(f"{file} is not JSON: {error}.") from error
    if not isinstance(content, kind):
        raise PrepareError(f"{file} holds a {type(content).__name__}; expected a {kind.__name__}.")
    return content


def field(entry: Any, key: str, where: str) -> Any:
    """A field of a JSON object.

    Raises:
        PrepareError: there is none.
    """
    if not isinstance(entry, Mapping) or key not in entry:
        raise PrepareError(f"{where}: {entry!r} has no {key!r}.")
    return entry[key]


def number_of(classes: Sequence[str]) -> dict[str, int]:
    """Class name → label."""
    return {name: number for number, name in enumerate(classes)}


def label(name: str, numbers: Mapping[str, int], where: str, listed_in: str) -> int:
    """The label of a class.

    Raises:
        PrepareError: the class is not in the list; says where it stands and the nearest that is.
    """
    if name not in numbers:
        near = config.nearest(name, numbers).partition(" Known here")[0]
        raise PrepareError(f"{where}: class {name!r} is not among the {len(numbers)} of {listed_in}.{near}")
    return numbers[name]
