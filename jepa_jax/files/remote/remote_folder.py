"""A remote folder: a listing of it, and the files in it.

Which files exist, their sizes and times come from one listing, since a request for each file of a large dataset takes
hours. Contents are always read from the store, except for the texts that `refresh` has read.

An object appears whole, or replaces the one before, when its upload ends. Object stores have no empty folders; a folder
made by this process exists for this process.
"""

import datetime
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from typing import Any, NamedTuple

from jepa_jax.files.remote import connection

THREADS = 16  # a store is slow, but serves many requests in parallel
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")  # of a file, as file systems name it


class State(NamedTuple):
    """Size and time of a file, named as in `os.stat_result`. Without a time of modification it is 0."""

    st_size: int
    st_mtime_ns: int


class RemoteFolder:
    """A remote folder and a listing of it.

    Attributes:
        url: of the folder.
    """

    def __init__(self, url: str):
        """Lists nothing yet; see `connection.connect` for errors."""
        scheme, _, path = url.partition("://")
        self.url = f"{scheme}://{path.rstrip('/')}"
        self.system, self.path = connection.connect(self.url)
        self._files: dict[str, State] | None = None
        self._folders: dict[str, dict[str, None]] = {}  # folder → names in it; a dict keeps their order
        self._texts: dict[str, bytes] = {}

    def __getstate__(self) -> str:
        return self.url  # without the listing, which may be large

    def __setstate__(self, url: str) -> None:
        self.__init__(url)

    @property
    def files(self) -> Mapping[str, State]:
        """Size and time of each file, by its path relative to the folder.

        Raises:
            RemoteError: the folder cannot be listed.
        """
        if self._files is None:
            self.refresh()
        assert self._files is not None
        return self._files

    @property
    def folders(self) -> Mapping[str, Iterable[str]]:
        """The names in each folder, by its path relative to this one; '' is this folder."""
        return self._folders if self.files is not None else {}

    def refresh(self, texts: str = "") -> None:
        """Lists the folder again, and reads the files whose relative path matches the pattern `texts`.

        Raises:
            RemoteError: the folder or a file cannot be read.
        """
        self._files, self._folders, self._texts = self._list(), {}, {}
        for path in sorted(self._files):
            self._add_name(path)
        if texts:
            wanted = [path for path in self._files if fnmatch.fnmatchcase(path, texts)]
            with futures.ThreadPoolExecutor(THREADS) as threads:
                read = threads.map(self._read_if_there, wanted)
                self._texts = {path: content for path, content in zip(wanted, read, strict=True) if content is not None}

    def read(self, path: str, end: int | None = None) -> bytes:
        """Reads a file, or its first `end` bytes.

        Raises:
            FileNotFoundError: the file does not exist.
            RemoteError: the file cannot be read.
        """
        if path in self._texts:
            return self._texts[path][:end]
        with connection.explained(self.url_of(path), "read"):
            content = self.system.cat_file(self.path_of(path), start=None if end is None else 0, end=end)
        assert isinstance(content, bytes)
        return content

    def write(self, path: str, size: int, write: Callable[[str], object]) -> None:
        """Calls `write` with the path in the file system, and adds the file to the listing.

        Raises:
            RemoteError: the file cannot be written.
        """
        target = self.path_of(path)
        try:
            with connection.explained(self.url_of(path), "written"):
                try:
                    write(target)
                except FileNotFoundError:  # object stores have no folders, but other file systems do
                    _make_folders(self.system, target)
                    write(target)
        except FileNotFoundError as error:  # a missing bucket
            raise connection.failure(self.url_of(path), "written", error) from error
        if self._files is not None:
            self._texts.pop(path, None)
            self._files[path] = State(size, 0)
            self._add_name(path)

    def remove(self, path: str) -> None:
        """Removes a file.

        Raises:
            FileNotFoundError: the file does not exist.
            RemoteError: the file cannot be removed.
        """
        if self._files is not None:
            self._files.pop(path, None)
            self._texts.pop(path, None)
            folder, _, name = path.rpartition("/")
            self._folders.get(folder, {}).pop(name, None)
            while folder and folder in self._folders and not self._folders[folder]:
                del self._folders[folder]
                folder, _, name = folder.rpartition("/")
                self._folders.get(folder, {}).pop(name, None)
        with connection.explained(self.url_of(path), "removed"):
            self.system.rm_file(self.path_of(path))

    def make(self, folder: str) -> None:
        """Adds a folder to the listing."""
        if self.files is not None:
            self._folders.setdefault(folder, {})

    def url_of(self, path: str) -> str:
        """The URL of a file of the folder."""
        return f"{self.url}/{path}" if path else self.url

    def path_of(self, path: str) -> str:
        """The path in the file system of a file of the folder."""
        return f"{self.path.rstrip('/')}/{path}" if path else self.path

    def _list(self) -> dict[str, State]:
        with connection.explained(self.url, "listed"):
            try:
                self.system.invalidate_cache()
                found: Any = self.system.find(self.path, detail=True)
                if not found:
                    self.system.ls(self.path)  # `find` of some file systems passes over errors
            except (FileNotFoundError, NotADirectoryError):
                found = {}
            self.system.invalidate_cache()  # keeps much more of each file in memory
        start = f"{self.path.rstrip('/')}/"
        return {
            name.removeprefix(start): State(int(info.get("size") or 0), _modified_ns(info))
            for name, info in found.items()
            if name.startswith(start) and not name.endswith("/") and info.get("type", "file") == "file"
        }

    def _add_name(self, path: str) -> None:
        while path:
            folder, _, name = path.rpartition("/")
            names = self._folders.setdefault(folder, {})
            if name in names:
                return
            names[name] = None
            path = folder

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:  # removed since it was listed
            return None


def _make_folders(system: Any, file: str) -> None:
    """Makes the folders of a file. The first folder of a path is never made, since it may be a bucket."""
    folder = file.rpartition("/")[0]
    if "/" not in folder.strip("/") or system.isdir(folder):
        return
    _make_folders(system, folder)
    try:
        system.mkdir(folder, create_parents=False)
    except FileExistsError:  # made by another process
        return


def _modified_ns(info: Mapping[str, Any]) -> int:
    time = next((info[key] for key in _TIMES if info.get(key) is not None), 0)
    if isinstance(time, str):
        try:
            time = datetime.datetime.fromisoformat(time)
        except ValueError:  # another format, as of HTTP
            return 0
    return round((time.timestamp() if isinstance(time, datetime.datetime) else time) * 10**9)
