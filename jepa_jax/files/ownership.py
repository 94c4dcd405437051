"""Exclusive ownership of a folder or file, recorded in a lock file with host, process and time.

Operating system locks do not work across machines on every shared disk, and object stores have none. A lock file works
on all of them and can be read by people. The owner renews it every `BEAT_S` seconds.

* A lock owned by a process on this machine is free as soon as that process has ended.
* A lock owned by another machine (or container) is free once it has not been renewed for `STALE_S` seconds. This time
  is measured locally, so clocks may differ; if the time stamp is already that old, `SILENT_S` seconds are enough.

Guarantees: on a file system, creating the lock and removing a stale one are atomic. Object stores, through epath or
fsspec, have no atomic creation: a process that finds no lock writes one, waits `SETTLE_S` and reads it back, so that if
several start at the same time, the last to write owns it. Two owners are possible only if a process is suspended for
longer than `STALE_S`, or for longer than `SETTLE_S` between reading and writing. Then the next `Lock.check` raises in
the one that lost the lock; call it before every operation that must not be done twice.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from absl import logging
from etils import epath

from jepa_jax.files.lock_owner import Owner, utc
from jepa_jax.files.lock_stores import Found, lock_file
from jepa_jax.files.paths import is_remote
from jepa_jax.files.remote.remote_path import RemotePath

BEAT_S = 10.0  # interval between renewals
STALE_S = 60.0  # a lock not renewed for this long is free
SILENT_S = 2.5 * BEAT_S  # the same, if the time stamp is already older than STALE_S
SETTLE_S = 2.0  # between writing a lock to an object store and reading it back
POLL_S = 0.5  # interval between reads of another owner's lock


class OwnershipError(RuntimeError):
    """Ownership is not available or was lost. The message has the owner, the time and what to do."""


class HeldError(OwnershipError):
    """Another live process is the owner."""


class LostError(OwnershipError):
    """The lock was removed, or taken over by another process."""


class Lock:
    """Ownership until `release`, renewed by a background thread.

    Attributes:
        file: the lock file.
        owner: this process.
    """

    def __init__(self, file: epath.Path | RemotePath, owner: Owner):
        """Starts to renew `file`, which must already have been created for `owner`."""
        self.file, self.owner = file, owner
        self._store = lock_file(file)
        self._released = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._renew, name=f"lock {file.name}", daemon=True)
        self._thread.start()

    @property
    def seems_lost(self) -> bool:
        """Whether the last renewal found the lock missing or replaced. Does not read the file."""
        return self._lost

    def check(self) -> None:
        """Reads the lock file.

        Raises:
            LostError: the file is missing, or another process owns it.
        """
        found = self._store.look()
        if found is not None and found.owner is not None and found.owner.token == self.owner.token:
            return
        self._lost = True
        if found is None:
            raise LostError(f"The lock file {self.file} was removed, so another process may start writing there.")
        raise LostError(f"{self.file} was taken over by {found.described}.")

    def release(self) -> None:
        """Removes the lock file if this process still owns it."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(LostError, OSError):
            self.check()
            self.file.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(BEAT_S):
            try:
                self.check()
                self._store.renew(self.owner)
            except LostError:
                return
            except Exception as error:  # may be temporary; tried again at the next interval
                logging.warning("The lock file %s could not be renewed: %s", self.file, error)


@contextlib.contextmanager
def owned(file: epath.PathLike | RemotePath, what: str, advice: str = "", *, wait: bool = False) -> Iterator[Lock]:
    """Holds the lock `file` as a context; see `acquire`."""
    lock = acquire(file, what, advice, wait=wait)
    try:
        yield lock
    finally:
        lock.release()


def acquire(
    file: epath.PathLike | RemotePath,
    what: str,
    advice: str = "",
    *,
    wait: bool = False,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Lock:
    """Acquires ownership.

    Args:
        file: the lock file; its folder is created if necessary.
        what: description of what is owned, for messages; the subject of a sentence.
        advice: sentences on what to do if another process is the owner.
        wait: waits until a live owner releases the lock instead of raising.
        sleep: waits for this many seconds.
        clock: the time in seconds, by which the silence of an owner is measured.

    Raises:
        HeldError: another live process is the owner.
        OSError: the file cannot be written.
    """
    mine = Owner.this_process()
    if not isinstance(file, RemotePath):
        file = epath.Path(file)
        file = file if is_remote(file) else epath.Path(os.path.join(os.getcwd(), file))
    first, since, announced = None, 0.0, False
    store = lock_file(file)
    while not store.create(mine, lambda: sleep(SETTLE_S)):
        found = store.look()
        if found is None:
            continue
        if first is None or found.token != first.token:
            first, since = found, clock()
        local = found.owner is not None and found.owner.is_local
        if found.owner is not None and local and not found.owner.is_alive:
            store.discard(found)
            continue
        alive = local or found.renewed != first.renewed
        if alive and not wait:
            raise HeldError(
                f"{what} is in use by {found.described}. {advice or 'Wait for it, or stop it.'} The lock ({file}) is "
                f"free when that process ends, or {STALE_S:.0f} s after its machine fails."
            )
        if found.renewed != first.renewed:
            first, since = found, clock()
        patience = SILENT_S if time.time() - found.renewed > STALE_S else STALE_S
        if not announced:
            announced = True
            print(_announcement(what, found, alive, patience), file=sys.stderr, flush=True)
        if not local and clock() - since >= patience:
            print(f"The owner of {file} ({found.described}) does not respond; taking over the lock.", file=sys.stderr)
            store.discard(found)
            continue
        sleep(POLL_S)
    return Lock(file, mine)


def _announcement(what: str, found: Found, alive: bool, patience: float) -> str:
    if alive:
        return f"Waiting for another job: {what} is in use by {found.described}."
    return (
        f"{what} was in use by {found.described}, last renewed {utc(found.renewed)}. Waiting up to {patience:.0f} s "
        "for a renewal; otherwise this process takes over."
    )
