"""Explains write errors: the file, the reason and what to do."""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator

from etils import epath

_SPACE = "Free some space"
_PERMISSION = "Make it writable"
ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: "Free some of your quota",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "Make it writable (it is mounted read-only)",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EIO: "Check the disk",
}
# Orbax and array_record raise their own exceptions, with the system's message.
_MESSAGES = {os.strerror(number): number for number in ADVICE}
_OTHER = re.compile("|".join(map(re.escape, _MESSAGES)))


class WriteError(Exception):
    """A file of a run cannot be written. The message has the folder, the reason, what to do and what was saved."""


def explain(error: BaseException, folder: epath.PathLike) -> str | None:
    """A message with the reason and what to do if `error` is a write error in `folder`; None for other errors."""
    if isinstance(error, OSError):
        number, path = error.errno, error.filename
    else:
        found = _OTHER.search(str(error))
        number, path = (_MESSAGES[found[0]] if found else None), None
    if number not in ADVICE:
        return None
    return f"{os.fspath(path or folder)}: {os.strerror(number)}. {ADVICE[number]} and run the same command again."


@contextlib.contextmanager
def while_writing(what: str, folder: epath.PathLike, kept: Callable[[], str]) -> Iterator[None]:
    """Converts write errors into WriteError.

    Args:
        what: description of what is written, such as "the metrics of step 3".
        folder: of the run.
        kept: returns a sentence about the last checkpoint.
    """
    try:
        yield
    except Exception as error:
        reason = explain(error, folder)
        if reason is None:
            raise
        raise WriteError(f"Cannot write {what} in {folder}. {reason} {kept()}") from error
