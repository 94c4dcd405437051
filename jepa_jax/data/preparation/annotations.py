"""Finding and parsing the annotation files of datasets. Errors name the file and line or entry."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jepa_jax.data.listing import layout, names, walk
from jepa_jax.data.preparation.raw import Item, PrepareError
from jepa_jax.files.remote.any_path import AnyPath
from jepa_jax.files.remote.remote_path import RemotePath
from jepa_jax.settings import nearest


def require_folder(root: AnyPath) -> None:
    """Checks that the raw set is a folder.

    Raises:
        PrepareError: it is not.
        RemoteError: it cannot be listed.
    """
    if not root.is_dir():
        what = "does not exist or is empty" if isinstance(root, RemotePath) else "is not a folder"
        raise PrepareError(f"--source: {root} {what}.")


def find(root: AnyPath, *paths: str) -> AnyPath:
    """Returns the first of these files or folders that exists below `root`.

    Raises:
        PrepareError: none of them exists.
    """
    require_folder(root)
    for path in paths:
        if (root / path).exists():
            return root / path
    others = f" (or {', '.join(paths[1:])})" if paths[1:] else ""
    raise PrepareError(f"{root} lacks {paths[0]}{others}.")


def unlisted(folder: AnyPath, listed: Iterable[Item]) -> tuple[str, ...]:
    """Returns a note on the files of a folder that no list contains; empty if there are none."""
    paths = {item.path for item in listed}
    others = [path for path in walk.walk(folder).files if str(folder / path) not in paths]
    return (f"In {folder.name}/, outside the lists: {layout.left_over(others)}",) if others else ()


def read_lines(file: AnyPath) -> list[tuple[int, str]]:
    """Returns (line number from 1, text) of each non-empty line.

    Raises:
        PrepareError: the file cannot be read or is not text.
    """
    try:
        lines = [line.strip(" \t\r\n") for line in names.split_lines(names.read_text(file))]
    except (OSError, ValueError) as error:
        raise PrepareError(f"{file} cannot be read: {error}.") from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


def read_json(file: AnyPath, kind: type) -> Any:
    """Reads a JSON file that contains a value of type `kind`, list or dict.

    Raises:
        PrepareError: the file is not JSON, or has a value of another type.
    """
    try:
        content = json.loads(names.read_text(file))
    except (OSError, ValueError) as error:
        raise PrepareError(f"{file} is not JSON: {error}.") from error
    if not isinstance(content, kind):
        raise PrepareError(f"{file} holds a {type(content).__name__}; expected a {kind.__name__}.")
    return content


def field(entry: Any, key: str, where: str) -> Any:
    """Returns a field of a JSON object.

    Raises:
        PrepareError: the field is missing.
    """
    if not isinstance(entry, Mapping) or key not in entry:
        raise PrepareError(f"{where}: {entry!r} has no {key!r}.")
    return entry[key]


def label_of_class(classes: Sequence[str]) -> dict[str, int]:
    """Class name → label."""
    return {name: number for number, name in enumerate(classes)}


def label(name: str, numbers: Mapping[str, int], where: str, listed_in: str) -> int:
    """Returns the label of a class.

    Raises:
        PrepareError: the class is unknown; the message suggests the closest name.
    """
    if name not in numbers:
        near = nearest(name, numbers).partition(" Known here")[0]
        raise PrepareError(f"{where}: class {name!r} is not among the {len(numbers)} of {listed_in}.{near}")
    return numbers[name]
