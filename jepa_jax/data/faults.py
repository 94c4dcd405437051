"""Error isolation: an exception while reading or encoding one item affects that item only, not the job."""

import contextlib
import os
import traceback
from collections.abc import Iterator

from av.error import FFmpegError

from jepa_jax.files.remote.connection import RemoteError

_MAX_REASON = 500  # characters; some libraries quote the data
# Their messages describe the file. For any other exception the reason includes its type and line.
_DESCRIBE_THE_FILE = (OSError, ValueError, SyntaxError, FFmpegError)


class DecodeError(Exception):
    """An item that cannot be decoded or encoded: its `path` and the `reason`."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)  # both as arguments, so that the error can be pickled
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@contextlib.contextmanager
def as_decode_error(path: str, prefix: str = "") -> Iterator[None]:
    """Converts any exception raised in the block to a `DecodeError` for `path`; `prefix` precedes its reason.

    A damaged file can make a library raise any exception, so types are not listed. Python's MemoryError propagates,
    since it is not specific to the item; FFmpeg's is converted, since FFmpeg raises it for sizes in a damaged header.
    RemoteError propagates too, since a store that does not answer concerns all items, and so do KeyboardInterrupt,
    SystemExit and GeneratorExit.
    """
    try:
        yield
    except DecodeError as error:
        if not prefix:
            raise
        raise DecodeError(error.path, prefix + error.reason) from error
    except RemoteError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) and not isinstance(error, FFmpegError):
            raise
        raise DecodeError(path, prefix + _reason(path, error)) from error


def _reason(path: str, error: Exception) -> str:
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "the file is empty"
    message = str(getattr(error, "strerror", None) or error)
    if log := getattr(error, "log", None):  # FFmpeg's: level, part and message of its last line
        message += f" ({log[2].strip()})"
    if not message or not isinstance(error, _DESCRIBE_THE_FILE):
        last = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {message} ({os.path.basename(last.filename)}:{last.lineno})"
    return message if len(message) <= _MAX_REASON else f"{message[:_MAX_REASON]} …"
