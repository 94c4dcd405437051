"""The fsspec file system of a URL, and its errors in one line."""

import contextlib
from collections.abc import Iterator
from typing import Any

from jepa_jax.files.paths import NEEDED
from jepa_jax.settings import ConfigError

_MAX_REASON = 300  # characters; some libraries quote the whole response


class RemoteError(OSError):
    """A remote path cannot be read or written. The message has the path and the reason."""


def connect(url: str) -> tuple[Any, str]:
    """Returns the file system of a URL and the path in it.

    Raises:
        ConfigError: fsspec does not know the protocol, its package is not installed, or the URL names no bucket.
        RemoteError: the server or the credentials are not accepted.
    """
    import fsspec  # slow to import, and not needed for local files

    scheme, _, path = url.partition("://")
    if not path.strip("/"):
        raise ConfigError(f"{url} names no bucket or folder; expected {scheme}://BUCKET/FOLDER.")
    try:
        # Only the start of the URL is parsed by fsspec, which takes `::` in a file name for a chain of URLs.
        system, _ = fsspec.url_to_fs(f"{scheme}://{path.partition('/')[0]}")
    except ImportError as error:
        raise ConfigError(f"{url} cannot be opened: {scheme}:// needs {NEEDED.get(scheme, error)}.") from error
    except ValueError as error:
        raise ConfigError(f"{url} cannot be opened: {error}.") from error
    except Exception as error:
        raise failure(url, "opened", error) from error
    return system, str(system._strip_protocol(url))


@contextlib.contextmanager
def explained(url: str, action: str) -> Iterator[None]:
    """Converts any error except FileNotFoundError to a RemoteError; the libraries of stores have their own classes.

    Args:
        url: the path that is read or written.
        action: `read` or `written`.
    """
    try:
        yield
    except (FileNotFoundError, RemoteError, ConfigError):
        raise
    except Exception as error:
        raise failure(url, action, error) from error


def failure(url: str, action: str, error: Exception) -> RemoteError:
    """The RemoteError for an error of a store."""
    reason = " ".join(str(error).split()) or "no reason given"
    return RemoteError(f"{url} cannot be {action}: {type(error).__name__}: {reason[:_MAX_REASON]}")
