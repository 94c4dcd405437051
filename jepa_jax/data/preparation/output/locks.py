"""Locks of an output folder.

`lock.json` is held while the plan, the notes' folder or the description changes: for seconds, at the beginning and at
the end of a job. `lock-2-of-3.json` is held by the job that writes part 2/3, so one job writes a shard at a time;
`lock-1-of-1.json` is held by a job that writes the whole set.
"""

import contextlib
import re
from collections.abc import Iterator

from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.preparation.share import Share
from jepa_jax.files import lock_stores, ownership
from jepa_jax.files.remote import any_path
from jepa_jax.files.remote.any_path import AnyPath

PATTERN = "lock*.json"
PLAN_AND_NOTES = "*/*.json"  # of a remote folder; read in parallel once its lock is held


@contextlib.contextmanager
def of_folder(folder: AnyPath) -> Iterator[None]:
    """Holds the lock of the folder, which is created if necessary; waits for another job to release it.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ownership.owned(folder / "lock.json", f"The plan of {folder}", wait=True):
        any_path.refresh(folder, PLAN_AND_NOTES)
        yield


@contextlib.contextmanager
def of_share(folder: AnyPath, share: Share) -> Iterator[ownership.Lock]:
    """Holds the lock of a share; takes over the lock of a killed job.

    Raises:
        PrepareError: another job is writing the share.
        OSError: the folder cannot be written.
    """
    what = f"Another process is preparing {folder}: it" if share.is_whole else f"{share.title} of {folder}"
    try:
        lock = ownership.acquire(_file(folder, share), what)
    except ownership.HeldError as error:
        raise PrepareError(str(error)) from error
    try:
        yield lock
    finally:
        lock.release()


def refuse_running(folder: AnyPath, share: Share, advice: str, *, siblings: bool) -> None:
    """Checks that no job is writing another share.

    Removes the locks of dead jobs. With the folder's lock held, no other share can begin.

    Args:
        folder: the output folder.
        share: of this job; skipped.
        advice: sentences on what to do if a job is writing another share.
        siblings: whether shares with the same count are checked too; they have no shard in common with `share`.

    Raises:
        PrepareError: a job is writing another share.
    """
    for file, other in _files(folder).items():
        if other != share and (siblings or other.count != share.count):
            try:
                ownership.acquire(file, f"{other.title} of {folder}", advice).release()
            except ownership.HeldError as error:
                raise PrepareError(str(error)) from error


def remove_dead(folder: AnyPath) -> None:
    """Removes the locks of dead jobs."""
    for file in _files(folder):
        with contextlib.suppress(ownership.HeldError):
            ownership.acquire(file, str(folder)).release()


def holder(folder: AnyPath, share: Share) -> str:
    """Describes the job that is writing a share; '' if there is none."""
    found = lock_stores.lock_file(_file(folder, share)).look()
    if found is None or (found.owner is not None and found.owner.is_local and not found.owner.is_alive):
        return ""
    return found.described


def _file(folder: AnyPath, share: Share) -> AnyPath:
    return folder / f"lock-{share.number}-of-{share.count}.json"


def _files(folder: AnyPath) -> dict[AnyPath, Share]:
    found = {file: re.fullmatch(r"lock-(\d+)-of-(\d+)", file.stem) for file in sorted(folder.glob(PATTERN))}
    return {file: Share(int(match[1]), int(match[2])) for file, match in found.items() if match is not None}
