"""Lock files on a file system and on an object store.

On a file system, creating a lock and discarding a stale one are atomic. Object stores have no atomic creation: the lock
is written if it does not exist, and read back after some time.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from etils import epath

from jepa_jax.files.lock_owner import Owner
from jepa_jax.files.paths import is_remote
from jepa_jax.files.remote.remote_path import RemotePath


@dataclasses.dataclass(frozen=True)
class Found:
    """The content of a lock file: its owner (None if the file is damaged) and the time of the last renewal."""

    owner: Owner | None
    renewed: float

    @property
    def token(self) -> str:
        """The owner's token; empty if the file is damaged."""
        return "" if self.owner is None else self.owner.token

    @property
    def described(self) -> str:
        """The owner, for messages."""
        return "an unknown process (its lock file is damaged)" if self.owner is None else str(self.owner)


@runtime_checkable
class LockFile(Protocol):
    """A lock file shared by several processes."""

    def look(self) -> Found | None:
        """Reads the lock; None if it does not exist."""
        ...

    def create(self, owner: Owner, settle: Callable[[], object]) -> bool:
        """Writes the lock if it does not exist. Returns whether `owner` holds it.

        `settle` is called on an object store: it waits for other processes that have just found no lock.
        """
        ...

    def renew(self, owner: Owner) -> None:
        """Updates the time of the last renewal."""
        ...

    def discard(self, found: Found) -> None:
        """Removes a stale lock, but not the new one of another process."""
        ...


def lock_file(file: os.PathLike[str] | RemotePath) -> LockFile:
    """The lock file at this path."""
    if isinstance(file, RemotePath):
        return RemoteLockFile(file)
    return RemoteLockFile(epath.Path(file)) if is_remote(file) else LocalLockFile(epath.Path(file))


@dataclasses.dataclass(frozen=True)
class LocalLockFile:
    """A lock file on a file system. Its modification time is the time of the last renewal."""

    file: epath.Path

    def look(self) -> Found | None:
        """As `LockFile.look`."""
        try:
            with open(self.file, encoding="utf-8", errors="replace") as opened:  # on NFS, open bypasses the cache
                return _found(opened.read(), os.fstat(opened.fileno()).st_mtime)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, owner: Owner, settle: Callable[[], object]) -> bool:
        """As `LockFile.create`."""
        del settle
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        try:
            with open(self.file, "x", encoding="utf-8") as opened:
                try:
                    opened.write(text(owner))
                    opened.flush()
                except OSError:  # a full disk
                    os.unlink(self.file)
                    raise
        except FileExistsError:
            return False
        return True

    def renew(self, owner: Owner) -> None:
        """As `LockFile.renew`."""
        del owner
        os.utime(self.file)

    def discard(self, found: Found) -> None:
        """As `LockFile.discard`."""
        try:
            with open(self.file, "r+b") as opened:
                # If several processes found the same stale lock, one removes it. The others wait here with the removed
                # file open, then see that the path has another file and do not remove that.
                with contextlib.suppress(OSError):  # without flock a race remains between look and unlink
                    fcntl.flock(opened, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(opened.fileno()), os.stat(self.file)) and self.look() == found:
                    os.unlink(self.file)
        except FileNotFoundError:
            return


@dataclasses.dataclass(frozen=True)
class RemoteLockFile:
    """A lock file on an object store. The file contains the time of the last renewal."""

    file: epath.Path | RemotePath

    def look(self) -> Found | None:
        """As `LockFile.look`."""
        try:
            return _found(self.file.read_text(), None)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, owner: Owner, settle: Callable[[], object]) -> bool:
        """As `LockFile.create`."""
        if self.look() is not None:
            return False
        self.renew(owner)
        try:
            settle()
        except BaseException:  # Ctrl-C
            self.file.unlink(missing_ok=True)
            raise
        found = self.look()
        return found is not None and found.token == owner.token

    def renew(self, owner: Owner) -> None:
        """As `LockFile.renew`."""
        self.file.write_text(text(owner))

    def discard(self, found: Found) -> None:
        """As `LockFile.discard`."""
        del found
        self.file.unlink(missing_ok=True)


def text(owner: Owner) -> str:
    """The content of a lock file renewed at the current time."""
    content: dict[str, Any] = dataclasses.asdict(owner) | {"renewed": time.time()}
    return json.dumps(content, indent=1) + "\n"


def _found(content: str, renewed: float | None) -> Found:
    """Parses a lock file. `renewed` overrides the time in its content if not None."""
    try:
        fields = json.loads(content)
        at = float(fields.pop("renewed"))
        owner = Owner(**{**fields, "pid": int(fields["pid"]), "since": float(fields["since"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        return Found(None, renewed or 0.0)
    return Found(owner, at if renewed is None else renewed)
