"""A mock of gs://bucket that redirects etils' calls to a local folder.

As in an object store, files are written atomically, and folders exist only while they contain files and cannot be
renamed. Orbax writes arrays with its own library, so it is given the path of the local folder.
"""

import contextlib
import os
import pathlib
import tempfile
import threading

from etils.epath import testing
from orbax.checkpoint import v1 as ocp


class _Upload:
    """An object that is being written. It appears, or replaces the previous object, when it is closed."""

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
    """Redirects gs://bucket to the local folder `here`."""
    # Folders are created with their first file and removed with their last one. The lock keeps a thread from removing
    # a folder that another has just created.
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
        return None if remote(path) else original(path, **kwargs)  # object stores have no empty folders

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

    save, load = ocp.save_async, ocp.load
    monkeypatch.setattr(ocp, "save_async", lambda path, *args, **kwargs: save(local(path), *args, **kwargs))
    monkeypatch.setattr(ocp, "load", lambda path, *args: load(local(path), *args))
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
