"""Files brought from memory to the disk, so that a power cut takes back nothing that was said to be saved."""

import errno
import os
import pathlib

_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # what file systems say that have no names to bring to a disk


def flush(folder: pathlib.Path) -> None:
    """Returns when every file in `folder` and below is on the disk, and so are their names.

    Raises:
        OSError: the disk failed to take a file.
    """
    for within, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(within, name))
        flush_names(pathlib.Path(within))


def flush_names(folder: pathlib.Path) -> None:
    """Returns when the names in `folder` are on the disk, where its file system can be asked for that.

    Raises:
        OSError: the disk failed to take them.
    """
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def _sync(path: str | pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
