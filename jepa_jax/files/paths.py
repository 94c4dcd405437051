"""Local paths, object store URLs, and atomic writes."""

import os
import pathlib
import re

from etils import epath

from jepa_jax.settings import ConfigError

SCHEMES = ("gs", "s3")  # URL schemes that checkpoints can be written to
NEEDED = {"gs": "gcsfs (pip install 'jepa_jax[gcs]')", "s3": "s3fs (pip install s3fs)"}
COPY = {"gs": "gcloud storage rsync --recursive {url} DIR", "s3": "aws s3 sync {url} DIR"}
MOUNT = {"gs": "gcsfuse BUCKET DIR", "s3": "mount-s3 BUCKET DIR"}
SUPPORTED = "expected a path on this machine, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a URL. Object stores can neither append to files nor rename folders."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(path)) is not None


def locate(path: epath.PathLike) -> epath.Path:
    """Makes a local path absolute; returns a URL unchanged. A URL that pathlib shortened to gs:/… is repaired.

    Raises:
        ConfigError: an unsupported or invalid URL.
    """
    text = os.fspath(path)
    if shortened := re.match(rf"({'|'.join(SCHEMES)}):/+(?!/)", text, re.IGNORECASE):
        right = f"{shortened[1].lower()}://{text[shortened.end() :]}"
        if not text.startswith(f"{shortened[1].lower()}://"):
            raise ConfigError(f"{text} is not a URL; write {right}.")
        if right.endswith("://"):
            raise ConfigError(f"{text} names no bucket; {SUPPORTED}.")
        return epath.Path(right)
    if is_remote(text):
        raise ConfigError(f"{text}: {text.partition('://')[0]}:// is not supported; {SUPPORTED}.")
    found = epath.Path(os.path.join(os.getcwd(), text))
    if is_remote(found):  # epath interprets /gs/BUCKET as gs://BUCKET
        raise ConfigError(f"{text} is in /{found.parts[1]}, which is interpreted as {found}; use another folder.")
    return found


def reachable(path: epath.PathLike) -> epath.Path:
    """Like `locate`, but also checks that an object store can be read.

    Raises:
        ConfigError: as `locate`; or the store cannot be read: a missing package, credentials or bucket.
    """
    found = locate(path)
    if is_remote(found):
        try:
            found.exists()
        except ImportError as error:
            scheme = str(found).partition("://")[0]
            raise ConfigError(f"{found} cannot be read: {scheme}:// needs {NEEDED[scheme]}. ({error})") from error
        except Exception as error:  # each store's library has its own error classes
            raise ConfigError(f"{found} cannot be read: {type(error).__name__}: {error}") from error
    return found


def require_local(path: str | os.PathLike[str], name: str) -> pathlib.Path:
    """Returns the path if it is local.

    Args:
        path: as given by the user.
        name: name of the flag or setting, for the error.

    Raises:
        ConfigError: the path is a URL.
    """
    text = os.fspath(path)
    if is_remote(text) or re.match(rf"({'|'.join(SCHEMES)}):/", text):
        scheme = text.partition(":")[0]
        copy = f" ({COPY[scheme].format(url=text)})" if scheme in COPY else ""
        mount = f" ({MOUNT[scheme]})" if scheme in MOUNT else ""
        raise ConfigError(
            f"{name} is {text}; expected a path on this machine: copy the files{copy} or mount the bucket{mount}."
        )
    return pathlib.Path(text)


def write_text(path: str | os.PathLike[str], text: str, errors: str = "strict") -> None:
    """Writes a file atomically in UTF-8. `errors` is passed to `str.encode`."""
    content = text.encode(errors=errors)
    if is_remote(path):
        epath.Path(path).write_bytes(content)
        return
    temporary = pathlib.Path(f"{os.fspath(path)}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def split_step(reference: str) -> tuple[str, int | None]:
    """The parts of WORKDIR:STEP. The step is None without :STEP, or if what follows the colon is not a number."""
    folder, colon, last = reference.rpartition(":")
    return (folder, int(last)) if colon and last.isdecimal() else (reference, None)
