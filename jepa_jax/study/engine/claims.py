"""Claims: each part of a study is worked on by one process at a time, on any machine that shares the folder.

A claim is a lock file (see `files.ownership`) that its owner renews. It is free once its owner has ended, or has not
renewed it for `ownership.STALE_S` seconds; then another process takes the part over.
"""

import time
from collections.abc import Callable

from etils import epath

from jepa_jax.files import ownership
from jepa_jax.files.lock_stores import Found, lock_file


class Claims:
    """The claims in a folder, as one process sees them. `take` does not wait for live owners."""

    def __init__(self, folder: epath.PathLike, clock: Callable[[], float] = time.monotonic):
        """Reads nothing yet.

        Args:
            folder: of the lock files; created with the first claim.
            clock: seconds, by which the silence of an owner is measured.
        """
        self._folder, self._clock = epath.Path(folder), clock
        self._seen: dict[str, tuple[Found, float]] = {}  # a claim of another machine, and when it was first seen so

    def take(self, name: str) -> ownership.Lock | None:
        """Claims a part of the study; None if another live process has claimed it.

        Raises:
            OSError: the folder cannot be written.
        """
        file = self._folder / f"{name}.lock"
        found = lock_file(file).look()
        if found is not None and not self._is_free(name, found):
            return None
        try:
            return ownership.acquire(file, f"{name} of the study")
        except ownership.HeldError:  # another process was faster
            return None

    def _is_free(self, name: str, found: Found) -> bool:
        if found.owner is not None and found.owner.is_local:
            return not found.owner.is_alive
        seen, since = self._seen.get(name, (None, 0.0))
        if seen != found:
            self._seen[name] = found, self._clock()
            return False
        return self._clock() - since >= ownership.STALE_S
