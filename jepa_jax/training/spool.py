"""Where files that grow are written: in the working directory, or beside it if that is on an object store."""

import pathlib
import shutil
import tempfile

from etils import epath

from jepa_jax.training.workdir import is_remote


class Spool:
    """A folder of this machine for files of a workdir that are appended to, which object stores do not allow.

    Attributes:
        folder: to write to. It is the workdir itself, if that is on this machine.
    """

    def __init__(self, workdir: epath.Path, *names: str):
        """`names`: files to go on with, where the workdir has them."""
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
        """Copies to the workdir what has grown since the last time."""
        if self._workdir is None:
            return
        for file in filter(pathlib.Path.is_file, sorted(self.folder.rglob("*"))):
            name, state = file.relative_to(self.folder).as_posix(), _state(file)
            if self._published.get(name) != state:
                (self._workdir / name).write_bytes(file.read_bytes())
                self._published[name] = state

    def close(self) -> None:
        """Publishes all and removes the folder, if it is not the workdir."""
        self.publish()
        if self._workdir is not None:
            shutil.rmtree(self.folder)


def _state(file: pathlib.Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
