"""Files to decode: a file on disk, or a byte range of one, such as a member of a tar."""

import os
from typing import NamedTuple


class ByteRange(NamedTuple):
    """A file stored inside another file."""

    name: str  # in errors and in skipped.jsonl
    container: str  # path of the file that holds it
    start: int  # its first byte
    size: int  # in bytes


File = str | ByteRange


def name_of(file: File) -> str:
    """The name of a file in errors."""
    return file if isinstance(file, str) else file.name


def url_of(file: File) -> str:
    """The URL under which FFmpeg opens a file."""
    # Without an explicit protocol FFmpeg takes the text before a colon for one (`20:57.mp4`).
    if isinstance(file, str):
        return f"file:{file}"
    return f"subfile,,start,{file.start},end,{file.start + file.size},,:file:{file.container}"


def locate(file: File) -> ByteRange:
    """Returns the byte range of a file.

    Raises:
        OSError: the file cannot be read.
    """
    return ByteRange(file, file, 0, os.stat(file).st_size) if isinstance(file, str) else file


def version(file: File) -> tuple[str, int, int]:
    """Returns name, size in bytes and modification time in ns, which identify a version of the file.

    Raises:
        OSError: the file cannot be read.
    """
    where = locate(file)
    return where.name, where.size, os.stat(where.container).st_mtime_ns
