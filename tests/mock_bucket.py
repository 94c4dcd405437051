"""An object store for fsspec: objects of bucket://NAME/… are files in a local folder, JEPA_TEST_BUCKETS/NAME.

As in an object store, objects appear whole, folders exist only while they contain objects, and nothing can be renamed.
The bucket `denied` refuses access. Worker processes and commands find the class by its entry point (`installed`).
"""

import collections
import os
import pathlib
import shutil
import uuid

import fsspec

ROOT = "JEPA_TEST_BUCKETS"
requests = collections.Counter()  # by kind, in this process
failing = set()  # ends of the paths that cannot be read or written in this process


class _Upload:
    """An object that is being written. It appears, or replaces the previous object, when it is closed."""

    def __init__(self, target):
        self.target, self.part = target, pathlib.Path(os.environ[ROOT], f"upload-{uuid.uuid4().hex}")
        self.file = self.part.open("wb")

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self.file.close()
        self.target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.part, self.target)


class MockBucket(fsspec.AbstractFileSystem):
    protocol = "bucket"
    cachable = False

    def _local(self, path, kind):
        requests[kind] += 1
        path = self._strip_protocol(path)
        name = path.partition("/")[0]
        if name == "denied":
            raise PermissionError("403 the caller has no access\nto the bucket")
        if not pathlib.Path(os.environ[ROOT], name).is_dir():
            raise FileNotFoundError("404 the specified bucket does not exist")
        if any(path.endswith(end) for end in failing):
            raise ConnectionError("connection reset by peer")
        return pathlib.Path(os.environ[ROOT], path)

    def _state(self, path, file):
        status = file.stat()
        return {"name": path, "type": "file", "size": status.st_size, "mtime": status.st_mtime_ns / 10**9}

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path)
        folder = self._local(path, "ls")
        found = []
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            if file.is_file():
                found.append(self._state(f"{path}/{file.name}", file))
            elif any(inner.is_file() for inner in file.rglob("*")):
                found.append({"name": f"{path}/{file.name}", "type": "directory", "size": 0})
        if not found:
            raise FileNotFoundError(path)
        return found if detail else [info["name"] for info in found]

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **_):
        path = self._strip_protocol(path)
        folder = self._local(path, "find")
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        found = {name: self._state(name, file) for file in files for name in [f"{path}/{file.relative_to(folder)}"]}
        return found if detail else list(found)

    def info(self, path, **_):
        path = self._strip_protocol(path)
        file = self._local(path, "info")
        if file.is_file():
            return self._state(path, file)
        self.ls(path)
        return {"name": path, "type": "directory", "size": 0}

    def _open(self, path, mode="rb", **_):
        file = self._local(path, mode)
        return _Upload(file) if mode == "wb" else file.open("rb")

    def rm_file(self, path):
        self._local(path, "rm").unlink()

    def cp_file(self, path1, path2, **_):
        with self._local(path1, "cp").open("rb") as source, _Upload(self._local(path2, "cp")) as target:
            shutil.copyfileobj(source, target)

    def makedirs(self, path, exist_ok=False):
        self._local(path, "makedirs")


def installed(folder, buckets, monkeypatch):
    """Registers bucket:// in this process, and in those that it starts; creates the bucket `data`."""
    (folder / "bucket-1.dist-info").mkdir(parents=True)
    (folder / "bucket-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: bucket\nVersion: 1\n")
    (folder / "bucket-1.dist-info" / "entry_points.txt").write_text("[fsspec.specs]\nbucket=mock_bucket:MockBucket\n")
    (buckets / "data").mkdir(parents=True)
    monkeypatch.setenv(ROOT, str(buckets))
    monkeypatch.syspath_prepend(folder)
    here = pathlib.Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, here, os.environ.get("PYTHONPATH", "")))))
    fsspec.register_implementation("bucket", MockBucket, clobber=True)
    requests.clear()
    failing.clear()
    return buckets / "data"
