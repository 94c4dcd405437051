"""Remote files read by libraries that need local ones."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from jepa_jax.files.paths import is_remote
from jepa_jax.files.remote import connection


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """The path of a local file with the content of `path`. The copy of a remote file is deleted at the end.

    Copies are in TMPDIR, one a process at a time. All of a file is fetched, since all of it is decoded; decoders seek,
    and each seek in a remote file would be a request.

    Raises:
        RemoteError: the remote file cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="jepa_jax-") as folder:
        copy = os.path.join(folder, f"copy{os.path.splitext(path)[1]}")
        with _reading(path):
            system, inner = connection.connect(path)
            system.get_file(inner, copy)
        yield copy


def open_binary(path: str) -> io.BufferedReader | io.RawIOBase:
    """Opens a local or remote file for reading parts of it.

    Raises:
        OSError: the file cannot be read; a RemoteError for a remote one.
    """
    if not is_remote(path):
        return open(path, "rb")
    with _reading(path):
        return _RemoteFile(path)


class _RemoteFile(io.RawIOBase):
    """A remote file that is open for reading. Errors are RemoteErrors."""

    def __init__(self, url: str):
        """Opens the file."""
        self._url = url
        system, path = connection.connect(url)
        with connection.explained(url, "read"):
            self._file: Any = system.open(path, "rb")

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Reads up to `size` bytes, or all that follow."""
        with connection.explained(self._url, "read"):
            return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves the position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        if not self.closed:
            self._file.close()
        super().close()


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        with connection.explained(path, "read"):
            yield
    except FileNotFoundError as error:
        raise connection.failure(path, "read", error) from error
