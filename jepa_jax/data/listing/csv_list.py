"""Reads CSV files of `path label` lines, without opening the listed files."""

import csv
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from jepa_jax.data.listing import names
from jepa_jax.settings import ConfigError

Files = Sequence[tuple[str, str | None]]
"""(path as listed, class name or None) of each file."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBERED = re.compile(rf"(.*?)[ \t]+({_INTEGER.pattern})", re.DOTALL)


def read_csv(file: pathlib.Path) -> Files:
    """Reads a CSV file of `path label` lines; paths are relative to its folder.

    Fields are separated by a space (paths may contain spaces), tab, comma or semicolon, and may be quoted. Labels are
    class names; leading zeros of integers are dropped. The label is optional.

    Raises:
        ConfigError: the file is not UTF-8 text, is empty, or lists a file that does not exist.
    """
    existing = _Existing(file.parent)
    files = []
    for number, record in _records(file):
        if not (line := record.strip(" \t\r\n")):
            continue
        try:
            reading = next((reading for reading in _readings(line) if reading[0] in existing), None)
        except csv.Error as error:
            raise ConfigError(f"{file}:{number}: {line[:80]!r}… is not `path label`: {error}.") from error
        if reading is None:
            raise _no_such_file(f"{file}:{number}", line, file.parent)
        files.append(reading)
    if not files:
        raise ConfigError(f"{file} is empty; expected lines of `path label`.")
    return files


def sort_classes(classes: Iterable[str]) -> list[str]:
    """Returns the distinct class names in label order: by value if all are integers, otherwise as text."""
    distinct = set(classes)
    return sorted(distinct, key=int if all(map(_INTEGER.fullmatch, distinct)) else None)


def _records(file: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, record); a record that starts with a quote may span lines.

    Bytes that are not UTF-8 are preserved, as in file names.
    """
    try:
        text = names.read_text(file)
    except ValueError as error:
        raise ConfigError(f"{file} is not text: expected lines of `path label`, in UTF-8 ({error}).") from error
    lines: list[str] = []
    first, quotes, quoted = 1, 0, False
    for number, line in enumerate(names.split_lines(text), start=1):
        if not lines:
            first, quotes, quoted = number, 0, line.lstrip(" \t").startswith('"')
        lines.append(line)
        quotes += line.count('"')
        if not quoted or quotes % 2 == 0:
            yield first, "".join(lines)
            lines = []
    if lines:
        raise ConfigError(
            f"{file}:{first}: {lines[0].strip()!r} begins with a quote that is not closed. Quote a path that has "
            'quotes in it, and double them: "say ""hi"".mp4" 0.'
        )


def _readings(line: str) -> Iterator[tuple[str, str | None]]:
    """Yields possible parses (path, label) of a line, most likely first: V-JEPA's format has a number at the end."""
    if numbered := _NUMBERED.fullmatch(line):
        yield numbered[1], class_name(numbered[2])
    yield line, None
    for separator in (" ", "\t", ",", ";"):
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE) if '"' in line else (csv.QUOTE_NONE,):
            options = {"delimiter": separator, "quoting": quoting, "skipinitialspace": separator != " "}
            *path, label = next(csv.reader(io.StringIO(line, newline=""), **options))
            while path and not path[-1]:  # more than one separator
                path.pop()
            if path:
                yield separator.join(path), class_name(label)
            elif quoting == csv.QUOTE_MINIMAL:
                yield label, None


def class_name(label: str) -> str | None:
    """The class name of a label, without the leading zeros of an integer; None if the label is empty."""
    label = label.strip(" \t")
    return str(int(label)) if _INTEGER.fullmatch(label) else label or None


def _no_such_file(where: str, line: str, folder: pathlib.Path) -> ConfigError:
    path, label = next(_readings(line))
    hint = "" if names.is_utf8(line) else " The line is not UTF-8: save the list as UTF-8 if the names on disk are."
    if label is not None and _INTEGER.fullmatch(label):
        return ConfigError(f"{where}: {folder / path} does not exist.{hint}")
    return ConfigError(
        f"{where}: {line!r} is not `path label`: {folder} has no such file. Expected a path and, for evaluation, a "
        f"space and its class (a number or a name); no header line.{hint}"
    )


class _Existing:
    """The set of existing paths. Each folder is listed once, which is faster than checking each file on a slow disk."""

    def __init__(self, root: pathlib.Path):
        self._root = root
        self._listings: dict[pathlib.Path, frozenset[str] | None] = {}

    def __contains__(self, path: str) -> bool:
        found = self._root / path
        if found.parent not in self._listings:
            self._listings[found.parent] = _list(found.parent)
        listing = self._listings[found.parent]
        return os.path.lexists(found) if listing is None else found.name in listing


def _list(folder: pathlib.Path) -> frozenset[str] | None:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError:  # its files may still be readable
        return None
