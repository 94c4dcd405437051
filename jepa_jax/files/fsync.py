"""fsync of files and folders, so that a checkpoint reported as saved survives a power failure."""

import errno
import os
import pathlib

_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # raised by file systems that cannot fsync folders


def flush(folder: pathlib.Path) -> None:
    """Flushes every file in `folder` and its subfolders to disk, and the directory entries.

    Raises:
        OSError: a file could not be flushed.
    """
    for within, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(within, name))
        flush_names(pathlib.Path(within))


def flush_names(folder: pathlib.Path) -> None:
    """Flushes the directory entries of `folder` to disk, if its file system supports that.

    Raises:
        OSError: they could not be flushed.
    """
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _sync(path: str | pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
