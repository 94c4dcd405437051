"""A stand-in for gs://bucket: etils' calls for it go to a folder of this machine.

Files are written whole, folders exist by what is in them and cannot be renamed. Arrays, which orbax's own library
writes, are sent there by handing it the folder's path.
"""

import contextlib
import os
import pathlib
import tempfile
import threading

from etils.epath import testing

from jepa_jax.checkpoints import manager, reader


class _Upload:
    """An object being written: nobody sees it, or what replaces it, before it is closed."""

    def __init__(self, file, target, folders):
        self.file, self.target, self.folders = file, target, folders

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        if self.file.closed:
            return
        self.file.close()
        with self.folders:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.file.name, self.target)


@contextlib.contextmanager
def mounted(here, monkeypatch):
    """The folder `here` stands for gs://bucket."""
    # A folder is made with its first file and removed with its last: one thread must not remove what another just made.
    folders = threading.Lock()

    def local(path):
        path = str(path)
        return str(here) + path.removeprefix("gs://bucket") if path.startswith("gs://bucket") else path

    def remote(path):
        return str(path).startswith("gs://")

    def plain(original, path, *args, **kwargs):
        return original(local(path), *args, **kwargs)

    def opened(original, path, mode):
        assert not remote(path) or "a" not in mode, f"{path}: objects cannot be appended to"
        if remote(path) and "w" in mode:
            number, part = tempfile.mkstemp(dir=uploads)
            os.close(number)
            return _Upload(original(part, mode), pathlib.Path(local(path)), folders)
        return original(local(path), mode)

    def made(original, path, **kwargs):
        return None if remote(path) else original(path, **kwargs)  # there are no empty folders

    def removed(original, path):
        with folders:
            original(local(path))
            with contextlib.suppress(OSError):
                pathlib.Path(local(path)).parent.rmdir()

    def moved(original, path, target):
        assert not (remote(path) and pathlib.Path(local(path)).is_dir()), f"{path}: folders cannot be renamed"
        return original(local(path), local(target))

    def walked(original, top, **kwargs):
        for folder, *names in original(local(top), **kwargs):
            yield str(folder).replace(local(top), str(top), 1), *names

    def copied(original, path, target, **kwargs):
        return original(local(path), local(target), **kwargs)

    save, load = manager.ocp.save_async, reader.ocp.load
    monkeypatch.setattr(manager.ocp, "save_async", lambda path, *args, **kwargs: save(local(path), *args, **kwargs))
    monkeypatch.setattr(reader.ocp, "load", lambda path, *args: load(local(path), *args))
    plainly = dict.fromkeys(("exists", "isdir", "listdir", "glob", "stat"), plain)
    # Uploads are on the same disk, but outside the test's own folder.
    with (
        tempfile.TemporaryDirectory(dir=pathlib.Path(here).parents[1]) as uploads,
        testing.mock_epath(
            **plainly,
            open=opened,
            mkdir=made,
            makedirs=made,
            remove=removed,
            rmtree=removed,
            rename=moved,
            replace=moved,
            walk=walked,
            copy=copied,
        ),
    ):
        yield here
