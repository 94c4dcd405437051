"""Checksums of a folder: SHA256SUMS, in the format of `sha256sum -c`.

Checkpoints need them because OCDBT, Orbax's format, verifies its manifest and B-tree nodes but not the array chunks,
which are most of the bytes. In a file of zstd-compressed float32 chunks, flipping one bit loaded wrong numbers without
an error at 131 of 208 tested offsets. Array shapes and dtypes, which are stored as JSON, are not verified either.
"""

import hashlib
import io
from typing import cast

from etils import epath

CHECKSUMS = "SHA256SUMS"


class DamagedError(Exception):
    """A file is missing or changed. The message names it."""


def write(folder: epath.Path) -> None:
    """Writes the checksums of all files in `folder` and below."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in _files(folder)]
    (folder / CHECKSUMS).write_text("".join(lines))


def verify(folder: epath.Path, only: str | None = None) -> None:
    """Compares all files, or only one, with their checksums.

    Raises:
        DamagedError: a file is missing, changed, or not listed.
    """
    known = _read(folder)
    for name in sorted({*known, *_files(folder)}) if only is None else [only]:
        if name not in known:
            raise DamagedError(f"{CHECKSUMS} does not list {name}.")
        try:
            same = _sha256(folder / name) == known[name]
        except (OSError, ValueError) as error:  # ValueError: a name with a null character, in damaged checksums
            raise DamagedError(f"{name} cannot be read ({error}).") from error
        if not same:
            raise DamagedError(f"{name} has changed since it was written (its SHA-256 differs).")


def _read(folder: epath.Path) -> dict[str, str]:
    """Checksums by file. The list needs no checksum of its own: if damaged, it no longer matches the files."""
    try:
        *lines, rest = (folder / CHECKSUMS).read_bytes().decode().split("\n")
    except (OSError, ValueError) as error:
        raise DamagedError(f"{CHECKSUMS} cannot be read ({error}).") from error
    if rest:
        raise DamagedError(f"{CHECKSUMS} ends in the middle of a line.")
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _files(folder: epath.Path) -> list[str]:
    """All files except SHA256SUMS, relative to `folder`."""
    files = [(within / name).relative_to(folder).as_posix() for within, _, names in folder.walk() for name in names]
    return sorted(name for name in files if name != CHECKSUMS)


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
