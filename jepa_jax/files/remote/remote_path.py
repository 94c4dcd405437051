"""Paths below a remote folder, with the part of pathlib's interface that `prepare` needs."""

import dataclasses
import fnmatch
import io
import pathlib
from collections.abc import Iterator

from jepa_jax.files.remote.local_copy import open_binary
from jepa_jax.files.remote.remote_folder import RemoteFolder, State


@dataclasses.dataclass(frozen=True, order=True)
class RemotePath:
    """A path below a remote folder. Methods are those of `pathlib.Path`, and raise RemoteError for errors of the store.

    `os.fspath` rejects it, so that it is never taken for a local path.

    Attributes:
        folder: the folder that was listed.
        url: of this path.
        relative: this path relative to `folder`; '' for the folder itself.
    """

    folder: RemoteFolder = dataclasses.field(compare=False, repr=False)
    url: str
    relative: str

    @classmethod
    def at(cls, url: str) -> "RemotePath":
        """The root of a new `RemoteFolder`."""
        folder = RemoteFolder(url)
        return cls(folder, folder.url, "")

    def _beside(self, relative: str) -> "RemotePath":
        return RemotePath(self.folder, self.folder.url_of(relative), relative)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, path: str) -> "RemotePath":
        parts = [self.relative, *path.split("/")]
        return self._beside("/".join(part for part in parts if part not in ("", ".")))

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return pathlib.PurePosixPath(self.name).stem

    @property
    def parent(self) -> "RemotePath":
        """The folder of this path; of the root, the root."""
        return self._beside(self.relative.rpartition("/")[0])

    def with_name(self, name: str) -> "RemotePath":
        """As `pathlib.Path.with_name`."""
        return self.parent / name

    def match(self, pattern: str) -> bool:
        """Whether the name matches a pattern."""
        return fnmatch.fnmatchcase(self.name, pattern)

    def exists(self) -> bool:
        """Whether this is a file or folder."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether this is a file."""
        return self.relative in self.folder.files

    def is_dir(self) -> bool:
        """Whether this is a folder with files in it, or made by this process."""
        return self.relative in self.folder.folders

    def iterdir(self) -> Iterator["RemotePath"]:
        """The files and folders in this folder."""
        return iter([self / name for name in self.folder.folders.get(self.relative, ())])

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """As `pathlib.Path.glob` for a pattern without slashes."""
        return (path for path in self.iterdir() if path.match(pattern))

    def files_below(self) -> list[str]:
        """Relative paths of the files below this path that are not hidden, sorted."""
        found, folders = [], [""]
        while folders:
            inside = folders.pop()
            for path in (self / inside).iterdir():
                if not path.name.startswith("."):
                    inner = f"{inside}/{path.name}" if inside else path.name
                    found += [inner] * path.is_file()
                    folders += [inner] * path.is_dir()  # an object store may have a file of the same name
        return sorted(found)

    def stat(self) -> State:
        """Size and time of the file."""
        try:
            return self.folder.files[self.relative]
        except KeyError:
            raise FileNotFoundError(f"{self} does not exist") from None

    def read_bytes(self, end: int | None = None) -> bytes:
        """The content of the file, or its first `end` bytes."""
        return self.folder.read(self.relative, end)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content of the file as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BufferedReader | io.RawIOBase:
        """Opens the file for reading."""
        assert mode == "rb"
        return open_binary(str(self))

    def write_bytes(self, content: bytes) -> None:
        """Writes the file."""
        self.folder.write(self.relative, len(content), lambda path: self.folder.system.pipe_file(path, content))

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Writes the file as text."""
        self.write_bytes(text.encode(encoding))

    def upload(self, file: pathlib.Path) -> None:
        """Writes the content of a local file."""
        size = file.stat().st_size

        def put(path: str) -> None:
            self.folder.system.put_file(str(file), path)
            self.folder.system.invalidate_cache()
            if (there := self.folder.system.info(path)["size"]) != size:
                raise OSError(f"{there:,} of {size:,} bytes arrived")

        self.folder.write(self.relative, size, put)

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the file."""
        try:
            self.folder.remove(self.relative)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Makes the folder for this process."""
        del parents, exist_ok
        self.folder.make(self.relative)

    def state_of(self, url: str) -> State | None:
        """Size and time of a file in the root folder, given its URL; None if it was not listed."""
        return self.folder.files.get(url.removeprefix(f"{self.folder.url}/"))

    def copy(self, target: "RemotePath") -> None:
        """Copies a file within the store."""
        source = self.folder.path_of(self.relative)
        size = self.stat().st_size
        self.folder.write(target.relative, size, lambda path: self.folder.system.cp_file(source, path))
