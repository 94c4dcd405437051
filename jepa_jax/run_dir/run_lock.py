"""Exclusive ownership of a run's folder, and checks that the folder has not been replaced.

Process 0 holds WORKDIR/lock.json while the run trains. A run that lost its lock or folder stops before the next write.
"""

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from jepa_jax.distributed import processes
from jepa_jax.files import ownership
from jepa_jax.files.paths import is_remote, locate
from jepa_jax.files.write_errors import WriteError
from jepa_jax.run_dir import workdir

ADVICE = "Two runs in one folder would delete each other's checkpoints: stop the other run, or use another --workdir."


class WorkdirLostError(RuntimeError):
    """The run's folder was deleted, replaced or taken over during training. The message says which and what is left."""


class RunLock:
    """Ownership of a workdir. Processes other than 0 hold no lock, and every check passes there.

    Attributes:
        folder: the workdir.
        saved: the newest saved step, for error messages; updated by `Checkpointer`.
    """

    def __init__(self, folder: epath.Path):
        """Creates the object without acquiring the lock."""
        self.folder = folder
        self.saved: int | None = None
        self._lock: ownership.Lock | None = None
        self._identity: tuple[int, int] | None = None

    def acquire(self) -> None:
        """Creates the folder if necessary and acquires its lock. Call in process 0 only.

        Raises:
            ConfigError: the folder is not a run's folder.
            OwnershipError: another live process holds the lock.
        """
        workdir.is_run(self.folder)
        self._lock = ownership.acquire(self.folder / workdir.LOCK, f"The working directory {self.folder}", ADVICE)
        self._identity = _identity(self.folder)

    def release(self) -> None:
        """Releases the lock if it is held."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def require_if_suspect(self) -> None:
        """Calls `require` if the last renewal of the lock failed; a cheap check for every step."""
        if self._lock is not None and self._lock.seems_lost:
            self.require()

    def owns(self) -> bool:
        """Whether `require` passes."""
        try:
            self.require()
        except WorkdirLostError:
            return False
        return True

    def require(self, saved: int | None = None) -> None:
        """Checks that the folder exists, is the one that training started in, and is owned by this run.

        Args:
            saved: a step whose checkpoint must exist.

        Raises:
            WorkdirLostError: a check failed.
        """
        if self._lock is None:
            return
        lost = ""
        try:
            self._lock.check()
        except ownership.LostError as error:
            lost = str(error)
        same, is_run = _identity(self.folder) == self._identity, (self.folder / workdir.CONFIG).exists()
        if same and is_run:
            if lost:
                raise WorkdirLostError(f"{lost} Training has stopped. {self._what_remains()}")
            if saved is not None and not self._has(saved):
                raise WorkdirLostError(
                    f"The checkpoint of step {saved} in {self.folder} was deleted. {self._what_remains()}"
                )
            return
        if is_run:
            what = "was replaced by another"
        else:
            what = f"has lost its {workdir.CONFIG}" if same and not is_remote(self.folder) else "was deleted"
        raise WorkdirLostError(f"The working directory {self.folder} {what} while training. {self._what_remains()}")

    def _what_remains(self) -> str:
        if self.saved is None:
            return "It had no checkpoint yet; the same command starts again from step 0."
        if not self._has(self.saved):
            return (
                f"Its last checkpoint, step {self.saved}, no longer exists. Without a copy of the folder, training "
                "starts again from step 0."
            )
        return (
            f"Its last checkpoint is step {self.saved}. Once no other run uses the folder, run the same command again "
            "to resume from the newest checkpoint."
        )

    def _has(self, step: int) -> bool:
        return (self.folder / "checkpoints" / str(step)).exists()


@contextlib.contextmanager
def held(path: epath.PathLike) -> Iterator[RunLock]:
    """Holds the lock of a workdir as a context manager. Collective.

    Raises:
        ConfigError: the folder is not a run's folder.
        OwnershipError: another live process holds the lock.
        WorkdirLostError: the folder was lost; replaces an error inside the context that is a consequence of it.
    """
    lock = RunLock(locate(path))
    try:
        processes.from_main(lock.acquire)
        yield lock
    except (WorkdirLostError, WriteError):  # a full or read-only disk does not mean that the folder is lost
        raise
    except Exception:
        with contextlib.suppress(OSError):  # a failing disk is already reported by the original error
            lock.require()
        raise
    finally:
        lock.release()


def _identity(folder: epath.Path) -> tuple[int, int] | None:
    """Device and inode of a local folder; None on an object store or if it does not exist."""
    if is_remote(folder):
        return None
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino
