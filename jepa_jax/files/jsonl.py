"""JSON Lines files whose last line may be incomplete because the writing process was killed."""

import os

from etils import epath

from jepa_jax.files.paths import write_text


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
