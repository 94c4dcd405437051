r"""Names of files and classes. Linux names are bytes; Python represents invalid UTF-8 by lone surrogates.

Names are `str` in memory, as returned by `os.listdir`. Binary files store their bytes (`to_bytes`), JSON files store a
lone surrogate as the escape `\udcXX`, and messages show `printable` names.
"""

import codecs
import re

from jepa_jax.files.remote.any_path import AnyPath

JSON_ERRORS = "backslashreplace"  # error handler that writes a lone surrogate as a JSON escape

_OTHER_BYTE = re.compile("[\ud800-\udfff]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_MARKS = {  # UTF-32 first, since its mark starts with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def to_bytes(name: str) -> bytes:
    """The bytes of a name on disk."""
    return name.encode("utf-8", "surrogateescape")


def from_bytes(content: bytes) -> str:
    """The name with these bytes."""
    return content.decode("utf-8", "surrogateescape")


def is_utf8(name: str) -> bool:
    """Whether a name is valid UTF-8, which some libraries require of paths."""
    return _OTHER_BYTE.search(name) is None


def printable(name: str) -> str:
    r"""Escapes a name to one line of printable text (`a\nb.mp4`); different names stay different.

    Leading and trailing spaces are escaped too, since readers of text lines strip them.
    """
    escaped = "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode() for c in name)
    return re.sub("^ +| +$", lambda spaces: r"\x20" * len(spaces[0]), escaped)


def read_text(file: AnyPath) -> str:
    """Reads a UTF-8 text file, with or without a byte-order mark; preserves bytes that are not UTF-8, as in names.

    Raises:
        ValueError: the file is UTF-16 or UTF-32, or binary.
    """
    content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
        raise ValueError(f"it is {encoding}; save it as UTF-8" if encoding else "it has NUL bytes")
    return from_bytes(content)


def split_lines(text: str) -> list[str]:
    """Splits into lines, keeping line ends. `str.splitlines` also splits at valid name characters such as U+2028."""
    return _LINE.findall(text)
