"""A local copy of appendable files for working directories on object stores, which cannot append."""

import pathlib
import shutil
import tempfile

from etils import epath

from jepa_jax.files.paths import is_remote


class LocalMirror:
    """A local folder for files that are appended to, which object stores do not support.

    Attributes:
        folder: the folder to write to; the workdir itself if that is local.
    """

    def __init__(self, workdir: epath.Path, *names: str):
        """Copies the files `names` from a remote workdir, if they exist, so that they can be appended to."""
        self._workdir = workdir if is_remote(workdir) else None
        self._published: dict[str, tuple[int, int]] = {}  # size and time by name
        if self._workdir is None:
            self.folder = pathlib.Path(workdir)
            return
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="jepa_jax-"))
        for name in names:
            if (self._workdir / name).exists():
                (self.folder / name).write_bytes((self._workdir / name).read_bytes())
                self._published[name] = _state(self.folder / name)

    def publish(self) -> None:
        """Copies files that changed since the last call to the workdir."""
        if self._workdir is None:
            return
        for file in filter(pathlib.Path.is_file, sorted(self.folder.rglob("*"))):
            name, state = file.relative_to(self.folder).as_posix(), _state(file)
            if self._published.get(name) != state:
                (self._workdir / name).write_bytes(file.read_bytes())
                self._published[name] = state

    def close(self, publish: bool = True) -> None:
        """Publishes if `publish` is set, and removes the folder unless it is the workdir."""
        if publish:
            self.publish()
        if self._workdir is not None:
            shutil.rmtree(self.folder)


def _state(file: pathlib.Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
