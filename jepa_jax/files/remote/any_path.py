"""Operations on local and remote paths alike."""

import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent import futures

from jepa_jax.files.paths import SCHEMES, is_remote
from jepa_jax.files.remote.remote_folder import THREADS
from jepa_jax.files.remote.remote_path import RemotePath
from jepa_jax.settings import ConfigError

AnyPath = pathlib.Path | RemotePath


def parse(text: str, name: str) -> AnyPath:
    """Returns a local path, or the root of a remote folder. Sends no request.

    Args:
        text: as given by the user.
        name: of the flag, for errors.

    Raises:
        ConfigError: the URL is invalid, fsspec does not know its protocol, or its package is not installed.
        RemoteError: the server or the credentials are not accepted.
    """
    if is_remote(text):
        return RemotePath.at(text)
    if shortened := re.match(rf"({'|'.join(SCHEMES)}):/+", text, re.IGNORECASE):
        raise ConfigError(f"{name} is {text}; write {shortened[1].lower()}://{text[shortened.end() :]}.")
    return pathlib.Path(text)


def refresh(folder: AnyPath, texts: str) -> None:
    """Lists a remote folder again and reads the files in it that match `texts`, in parallel."""
    if isinstance(folder, RemotePath):
        folder.folder.refresh(texts)


def publish(file: pathlib.Path, target: AnyPath) -> None:
    """Moves a complete local file to its place, atomically."""
    if isinstance(target, RemotePath):
        target.upload(file)
        file.unlink()
    else:
        os.replace(file, target)


def move_file(source: AnyPath, target: AnyPath) -> None:
    """Renames a file within one folder."""
    if isinstance(source, RemotePath) and isinstance(target, RemotePath):
        source.copy(target)
        source.unlink()
    else:
        os.replace(_local(source), _local(target))


def move_folder(source: AnyPath, target: AnyPath) -> None:
    """Renames a folder of files.

    A remote one is copied and then removed, so after an interruption files may be in both. Those in `target` are kept.
    """
    if isinstance(source, RemotePath) and isinstance(target, RemotePath):
        there = {file.name for file in target.iterdir()}
        lacking = [file for file in source.iterdir() if file.name not in there]
        _for_each(lacking, lambda file: file.copy(target / file.name))
        _for_each(source.iterdir(), lambda file: file.unlink(missing_ok=True))
    else:
        _local(source).rename(_local(target))


def remove_folder(folder: AnyPath) -> None:
    """Removes a folder of files, if it exists."""
    if isinstance(folder, RemotePath):
        _for_each(folder.iterdir(), lambda file: file.unlink(missing_ok=True))
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _for_each(files: Iterable[RemotePath], change: Callable[[RemotePath], None]) -> None:
    with futures.ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(change, list(files)))


def _local(path: AnyPath) -> pathlib.Path:
    assert isinstance(path, pathlib.Path)
    return path
