"""JSON Lines files whose last line may be incomplete because the writing process was killed."""

import os

from etils import epath

from jepa_jax.files.paths import is_remote, write_text


def whole_lines(file: str | os.PathLike[str]) -> list[bytes]:
    """The complete lines of a file without line breaks; none if it does not exist.

    Removes an incomplete last line from the file.
    """
    path = epath.Path(file)
    if not path.exists():
        return []
    whole, newline, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        write_text(path, (whole + newline).decode("utf-8"))
    return whole.split(b"\n") if whole else []


def append(file: str | os.PathLike[str], line: str) -> None:
    """Appends a line, given without its line break, and writes it to disk (fsync)."""
    if is_remote(file):  # objects cannot be appended to
        path = epath.Path(file)
        write_text(path, (path.read_text() if path.exists() else "") + line + "\n")
        return
    with open(file, "a", encoding="utf-8") as opened:
        opened.write(line + "\n")
        opened.flush()
        os.fsync(opened.fileno())
