"""Checkpoints of the training state: saved in the background, verified before they are restored.

A checkpoint is the folder WORKDIR/checkpoints/STEP. It contains Orbax's files (the state as nested dicts, item
`state`), `leaves.json` (step, and dtype and shape of every array) and `SHA256SUMS` of all files. The folder is renamed
to STEP once everything is written, so an interrupted save never counts as a checkpoint. Object stores (gs://…) cannot
rename folders; there, a folder without SHA256SUMS is not a checkpoint.

With several processes, each writes its own arrays. Once all have finished, process 0 writes the other files. It also
chooses the checkpoint that all processes restore.

Orbax raises the same error for a damaged file, a missing array and a different shape, converts dtypes silently, and
loads some damaged files as wrong numbers. Therefore checksums detect damage and `leaves.json` detects another model;
errors that Orbax raises after both checks are not caught.

Orbax's own `training.Checkpointer` is not used: it deletes old steps before checksums can be written, counts damaged
steps among those to keep, and skips a save while the previous one is in progress.
"""

import concurrent.futures
import json
import os
import pathlib
from collections.abc import Callable, Collection, Mapping
from logging import LogRecord
from typing import Any, TypeVar

import jax
from absl import logging
from etils import epath

from jepa_jax.checkpoints import integrity, tree_paths
from jepa_jax.checkpoints.reader import (
    LEAVES,
    NEXT_STEPS,
    CheckpointDamaged,
    checkpoint_folder,
    is_finished,
    list_damaged,
    load_arrays,
    newest_good,
    saved_steps,
    warn_damaged,
)
from jepa_jax.distributed import processes
from jepa_jax.files import fsync
from jepa_jax.files.paths import is_remote
from jepa_jax.run_dir.run_lock import RunLock

State = TypeVar("State")

PARTIAL = ".partial"
# Devices share the transfer of an array to the host in slices of at least this size. By default they slice every bias,
# which with 8 devices takes over a second of each save.
MIN_SLICE_BYTES = 2**20


class Checkpointer:
    """Writes and restores the checkpoints of one training run. As a context manager it waits for the last save.

    One save is in progress at a time. Not thread-safe. All methods are collective.

    Attributes:
        last_good: the newest step known to be undamaged because it was saved here or verified by `restore`; else None.
    """

    def __init__(
        self, workdir: epath.PathLike, *, keep: int, always: Collection[int] = (), lock: RunLock | None = None
    ):
        """Opens WORKDIR/checkpoints and removes unfinished checkpoints with a warning.

        Args:
            workdir: of the training run.
            keep: number of checkpoints to keep, at least 1, not counting damaged ones.
            always: steps whose checkpoints are kept in any case.
            lock: checked in process 0 before a checkpoint is renamed to its final name, and again before it counts as
                saved and older ones are deleted. None if nothing else writes to the folder.

        Raises:
            ConfigError: the processes do not all see the same folder.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}; expected at least 1.")
        self.last_good: int | None = None
        self._keep, self._always, self._lock = keep, always, lock
        self._folder = checkpoint_folder(workdir)
        self._damaged: dict[int, str] = {}
        self._pending: concurrent.futures.Future[int] | None = None
        self._finished: list[int] = []
        self._executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        processes.from_main(self._tidy_up)
        processes.require_shared(self._folder)

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close()
        if error is None:  # an exiting process would make process 0 exit before it has finished
            processes.wait_for_all()

    @property
    def saved_steps(self) -> list[int]:
        """Steps with a checkpoint, damaged ones included, ascending."""
        return saved_steps(self._folder.parent)

    def save(self, step: int, state: Any) -> None:
        """Starts saving. Waits for the previous save and for the copy to host memory, not for files.

        The state may be donated to the next step as soon as this returns: Orbax keeps a copy on the host. On CPU that
        copy is a view of the buffers, which JAX then does not reuse. A step that was skipped as damaged is replaced. An
        undamaged one is not written again, since the state is a function of the step.

        Raises:
            Exception: the previous save failed.
        """
        self.wait()
        if step == self.last_good:
            return
        from orbax.checkpoint import v1 as ocp  # slow to import, and the first step does not need it

        named = tree_paths.by_name(state)
        context = ocp.Context()
        context.array.saving.min_slice_bytes_for_replica_parallel = MIN_SLICE_BYTES
        with context:
            response = ocp.save_async(str(self._unnamed(step)), tree_paths.nest(named), overwrite=True)
        description = {"step": step, "mesh": _mesh(named), "leaves": tree_paths.describe(named)}
        self._pending = self._executor.submit(self._commit, step, description, response.result)

    def finished(self) -> list[int]:
        """Steps saved since the last call, for the log. Raises the error of a failed save."""
        if self._pending is not None and self._pending.done():
            self.wait()
        steps, self._finished = self._finished, []
        return steps

    def wait(self) -> None:
        """Waits for the save in progress and raises its error, if any."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.last_good = pending.result()
            self._damaged.pop(self.last_good, None)
            self._finished.append(self.last_good)

    def close(self) -> None:
        """Waits for the save in progress."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()

    def restore(self, abstract_state: State) -> tuple[int, State] | None:
        """Restores the newest good checkpoint. Logs a warning if it was saved on another mesh.

        Args:
            abstract_state: a pytree of jax.ShapeDtypeStruct. Arrays are restored to their `sharding`, or to this
                process's first device if it is None.

        Returns:
            The step and the state, or None if nothing was saved yet.

        Raises:
            CheckpointMismatch: the newest undamaged checkpoint is of another model.
            CheckpointDamaged: all checkpoints are damaged.
        """
        expected = tree_paths.by_name(abstract_state)
        step, self._damaged = processes.from_main(lambda: self._choose(expected))
        if step is None:
            return None
        restored = tree_paths.by_name(load_arrays(self._folder / str(step), expected))
        self.last_good = step
        structure = jax.tree.structure(abstract_state)
        return step, jax.tree.unflatten(structure, [restored[name] for name in expected])

    def _choose(self, expected: Mapping[str, Any]) -> tuple[int | None, dict[int, str]]:
        """The step to restore, if there is one, and the damaged steps after it. Call in process 0 only."""
        steps = self.saved_steps
        step, damaged = newest_good(self._folder, steps, tree_paths.describe(expected))
        warn_damaged(damaged)
        if step is not None:
            _warn_if_mesh_changed(self._folder / str(step), _mesh(expected))
        elif steps:
            raise CheckpointDamaged(
                f"All checkpoints in {self._folder} are damaged:{list_damaged(damaged)}\n{NEXT_STEPS}"
            )
        return step, damaged

    def _commit(self, step: int, description: Mapping[str, Any], wait_for_orbax: Callable[[], None]) -> int:
        """Finishes a checkpoint, in the background. Orbax returns when all processes have written their arrays."""
        wait_for_orbax()
        if processes.is_main():
            if self._lock is not None:
                self._lock.require()
            unnamed, final = self._unnamed(step), self._folder / str(step)
            (unnamed / LEAVES).write_text(json.dumps(description))
            integrity.write(unnamed)
            if unnamed != final:
                fsync.flush(pathlib.Path(unnamed))
                if final.is_dir():  # skipped as damaged
                    final.rmtree()
                unnamed.rename(final)
                fsync.flush_names(pathlib.Path(self._folder))
            if self._lock is not None:
                self._lock.saved = step
                self._lock.require(step)
            self._delete_old(step)
        return step

    def _unnamed(self, step: int) -> epath.Path:
        """The folder of a checkpoint until it is finished."""
        return self._folder / (str(step) if is_remote(self._folder) else f"{step}{PARTIAL}")

    def _tidy_up(self) -> None:
        """Creates the folder and removes unfinished checkpoints."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else []:  # object stores have no folders
            step, partial, _ = path.name.partition(PARTIAL)
            if partial or (is_remote(path) and step.isdecimal() and not is_finished(path)):
                logging.warning("The checkpoint of step %s was never finished (stopped while saving); removed.", step)
                path.rmtree()

    def _delete_old(self, saved: int) -> None:
        """Deletes checkpoints older than the newest `keep` that are not known to be damaged, except those in `always`.

        A damaged checkpoint newer than these stays until it is saved again or is old enough to be deleted.
        """
        good = [step for step in self.saved_steps if step == saved or step not in self._damaged]
        for step in self.saved_steps:
            if step < good[-self._keep :][0] and step not in self._always:
                (self._folder / str(step)).rmtree()


def hide_orbax_tracebacks(record: LogRecord) -> bool:
    """A logging filter for errors that Orbax logs in its threads: `Checkpointer` raises them again."""
    return not (record.exc_info and f"{os.sep}orbax{os.sep}" in record.pathname)


def _mesh(named: Mapping[str, Any]) -> dict[str, int]:
    """The axis sizes of the arrays' mesh and the number of processes."""
    shardings = [leaf.sharding for leaf in named.values()]
    mesh = next((dict(s.mesh.shape) for s in shardings if isinstance(s, jax.sharding.NamedSharding)), {})
    return mesh | {"processes": jax.process_count()}


def _warn_if_mesh_changed(path: epath.Path, mesh: Mapping[str, int]) -> None:
    saved = json.loads((path / LEAVES).read_text()).get("mesh", mesh)
    if saved != mesh:
        logging.warning(
            "Step %s was saved on %s and resumes on %s: the order of sums changes, so results agree up to rounding, "
            "but not bit for bit.",
            path.name,
            *(" × ".join(f"{axis} {size}" for axis, size in sizes.items()) for sizes in (saved, mesh)),
        )
