"""The training state on disk: saved while training goes on, checked before it is used again.

A checkpoint is the folder WORKDIR/checkpoints/STEP. In it are what orbax wrote (the state as nested dicts, item
`state`), `leaves.json` (step, and dtype and shape of every array) and `SHA256SUMS` over all files (`sha256sum -c` reads
it). The folder gets its name by one rename after all that is written, so what an interrupted save leaves behind is
never taken for a checkpoint. On an object store (gs://…), where folders cannot be renamed, what has no SHA256SUMS yet
is not a checkpoint.

With several processes each writes its own arrays; process 0 does the rest when all have written, chooses what to
restore, and tells the others.

Orbax raises one and the same error for a damaged file, a missing array and another shape, converts another dtype
silently, and loads some damaged files as wrong numbers. So checksums decide what is damaged, `leaves.json` decides what
is another model, and an error of orbax's after both is neither and is not caught.

Why orbax's functions and not its `training.Checkpointer`: that one deletes old steps as soon as orbax is done, before
checksums can be written, counts a damaged step among those to keep, and leaves a save out when the previous one is
still being written.
"""

import concurrent.futures
import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from jepa_jax.config import Config
from jepa_jax.training import checksums, durable, leaves, processes
from jepa_jax.training.workdir import is_remote, load_config, locate

State = TypeVar("State")

LEAVES, PARTIAL = "leaves.json", ".partial"
HOW_TO_GO_ON = "Use another --workdir, or --resume=overwrite to move this one aside and start anew."


class CheckpointError(Exception):
    """A checkpoint that cannot be used: says which, why, and what to do."""


class CheckpointMismatch(CheckpointError):  # noqa: N818 (a finding, like damage, under one common error)
    """An undamaged checkpoint, but of another model."""


class CheckpointDamaged(CheckpointError):  # noqa: N818
    """Files are missing, cut short or changed."""


@dataclasses.dataclass(frozen=True)
class EncoderCheckpoint:
    """A trained encoder, and the settings it was trained with.

    Attributes:
        config: of the training run.
        params: nested dict; the EMA's parameters, or the online encoder's where EMA was off.
        step: of training.
    """

    config: Config
    params: Any
    step: int


class Checkpointer:
    """Writes and restores the checkpoints of one training run; closes, and so finishes the last save, as a context.

    One save is under way at a time, in the background. Not for use from several threads, nor by two runs on the same
    folder. With several processes all of them make every call.

    Attributes:
        last_good: the newest step known to be whole: saved here, or checked by `restore`. None if there is none.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int):
        """Opens WORKDIR/checkpoints, and removes (with a warning) what an interrupted save left there.

        Args:
            workdir: of the training run.
            keep: how many checkpoints to keep, at least 1. Damaged ones are not counted.

        Raises:
            ConfigError: several processes, and not all see the same folder.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least one checkpoint has to be kept.")
        self.last_good: int | None = None
        self._keep = keep
        self._folder = _folder(workdir)
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
        if error is None:  # a process that ends takes the others along: not before process 0 is done
            processes.wait_for_all()

    @property
    def saved_steps(self) -> list[int]:
        """Steps with a checkpoint, damaged ones included, ascending."""
        return saved_steps(self._folder.parent)

    def save(self, step: int, state: Any) -> None:
        """Starts saving; waits for the save before it, and for the copy to host memory, not for files.

        The state may be donated to the next step at once: orbax holds a copy on the host, or on CPU, where that copy
        is a view, the buffers themselves, which jax then does not reuse. A step that was passed over as damaged is
        replaced; one that is whole is not written again, as the state is a function of the step.

        Raises:
            Exception: what went wrong in the save before this one.
        """
        self.wait()
        if step == self.last_good:
            return
        named = leaves.by_name(state)
        response = ocp.save_async(str(self._unnamed(step)), leaves.nest(named), overwrite=True)
        description = {"step": step, "mesh": _mesh(named), "leaves": leaves.describe(named)}
        self._pending = self._executor.submit(self._commit, step, description, response.result)

    def finished(self) -> list[int]:
        """Steps saved completely since the last call, for the log; raises what went wrong in the background."""
        if self._pending is not None and self._pending.done():
            self.wait()
        steps, self._finished = self._finished, []
        return steps

    def wait(self) -> None:
        """Returns when no save is under way; raises what went wrong in it."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.last_good = pending.result()
            self._damaged.pop(self.last_good, None)
            self._finished.append(self.last_good)

    def close(self) -> None:
        """Waits for the save under way."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()

    def restore(self, abstract_state: State) -> tuple[int, State] | None:
        """The newest good checkpoint, or None if none was ever finished.

        It may have been saved on another mesh, of which a warning tells.

        Args:
            abstract_state: a pytree of jax.ShapeDtypeStruct. Arrays come back with their `sharding`, or where that is
                None on this process's first device.

        Raises:
            CheckpointMismatch: the newest undamaged one is of another model.
            CheckpointDamaged: there are checkpoints, and all are damaged.
        """
        expected = leaves.by_name(abstract_state)
        step, self._damaged = processes.from_main(lambda: self._choose(expected))
        if step is None:
            return None
        restored = leaves.by_name(_load(self._folder / str(step), expected))
        self.last_good = step
        structure = jax.tree.structure(abstract_state)
        return step, jax.tree.unflatten(structure, [restored[name] for name in expected])

    def _choose(self, expected: Mapping[str, Any]) -> tuple[int | None, dict[int, str]]:
        """The step to restore, if there is any, and the damaged ones after it; in process 0."""
        steps = self.saved_steps
        step, damaged = _newest_good(self._folder, steps, leaves.describe(expected))
        _warn(damaged)
        if step is not None:
            _tell_of_another_mesh(self._folder / str(step), _mesh(expected))
        elif steps:
            raise CheckpointDamaged(f"All checkpoints in {self._folder} are damaged:{_list(damaged)}\n{HOW_TO_GO_ON}")
        return step, damaged

    def _commit(self, step: int, description: Mapping[str, Any], wait_for_orbax: Callable[[], None]) -> int:
        """Runs in the background. Orbax is done when all processes have written."""
        wait_for_orbax()
        if processes.is_main():
            unnamed, final = self._unnamed(step), self._folder / str(step)
            (unnamed / LEAVES).write_text(json.dumps(description))
            checksums.write(unnamed)
            if unnamed != final:
                durable.flush(pathlib.Path(unnamed))
                if final.is_dir():  # passed over as damaged
                    final.rmtree()
                unnamed.rename(final)
                durable.flush_names(pathlib.Path(self._folder))
            self._delete_old(step)
        return step

    def _unnamed(self, step: int) -> epath.Path:
        """Where a checkpoint is until it is finished."""
        return self._folder / (str(step) if is_remote(self._folder) else f"{step}{PARTIAL}")

    def _tidy_up(self) -> None:
        """Makes the folder, and removes what was not finished."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else []:  # object stores make none
            step, partial, _ = path.name.partition(PARTIAL)
            if partial or (is_remote(path) and step.isdecimal() and not _is_finished(path)):
                logging.warning("The checkpoint of step %s was never finished (stopped while saving); removed.", step)
                path.rmtree()

    def _delete_old(self, saved: int) -> None:
        """Deletes what is older than the newest `keep` checkpoints not known to be damaged.

        A damaged one newer than these stays until it is saved again or has become old itself.
        """
        good = [step for step in self.saved_steps if step == saved or step not in self._damaged]
        for step in self.saved_steps:
            if step < good[-self._keep :][0]:
                (self._folder / str(step)).rmtree()


def saved_steps(workdir: epath.PathLike) -> list[int]:
    """Steps of which `workdir` has a checkpoint, damaged ones included, ascending."""
    folder = _folder(workdir)
    paths = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return sorted(int(path.name) for path in paths if _is_finished(path))


def read_encoder(workdir: epath.PathLike, step: int | None = None) -> EncoderCheckpoint:
    """The encoder of a training run's newest good checkpoint, or of the step named; nothing else is loaded.

    Works on other devices than the run's; the arrays come to this process's first device.

    Raises:
        jepa_jax.config.ConfigError: no such folder, or no readable config.json in it.
        CheckpointError: no checkpoint, or none of that step.
        CheckpointDamaged: the one named is damaged, or all are.
    """
    config, steps, folder = load_config(workdir), saved_steps(workdir), _folder(workdir)
    if not steps:
        raise CheckpointError(f"{workdir} has no checkpoint yet.")
    if step is not None and step not in steps:
        raise CheckpointError(f"{workdir} has no checkpoint of step {step}; it has {_steps(steps)}.")
    chosen, damaged = _newest_good(folder, steps if step is None else [step])
    if chosen is None:
        raise CheckpointDamaged(
            f"No checkpoint to read in {folder}; damaged are{_list(damaged)}\nIt has {_steps(steps)}."
        )
    _warn(damaged)
    group = "target_params" if config.ema.enabled else "params/encoder"
    wanted = {
        name: jax.ShapeDtypeStruct(leaf["shape"], jnp.dtype(leaf["dtype"]))
        for name, leaf in _read_leaves(folder / str(chosen)).items()
        if name.startswith(f"{group}/")
    }
    if not wanted:
        raise CheckpointError(f"{folder / str(chosen)} holds no {group}.")
    params = _load(folder / str(chosen), wanted)
    for key in group.split("/"):
        params = params[key]
    return EncoderCheckpoint(config, params, chosen)


def _folder(workdir: epath.PathLike) -> epath.Path:
    return locate(workdir) / "checkpoints"


def _is_finished(path: epath.Path) -> bool:
    """Whether a folder STEP, whole or damaged, was once finished."""
    return (path / checksums.CHECKSUMS).exists() if is_remote(path) else path.is_dir()


def _mesh(named: Mapping[str, Any]) -> dict[str, int]:
    """Over what the arrays are spread: sizes of the axes of their mesh, and how many processes."""
    shardings = [leaf.sharding for leaf in named.values()]
    mesh = next((dict(s.mesh.shape) for s in shardings if isinstance(s, jax.sharding.NamedSharding)), {})
    return mesh | {"processes": jax.process_count()}


def _tell_of_another_mesh(path: epath.Path, mesh: Mapping[str, int]) -> None:
    saved = json.loads((path / LEAVES).read_text()).get("mesh", mesh)
    if saved != mesh:
        logging.warning(
            "Step %s was saved on %s and goes on on %s: sums are taken in another order, so the run stays the same up "
            "to rounding, but no longer to the bit.",
            path.name,
            *(" × ".join(f"{axis} {size}" for axis, size in sizes.items()) for sizes in (saved, mesh)),
        )


def _newest_good(
    folder: epath.Path, steps: list[int], expected: leaves.Leaves | None = None
) -> tuple[int | None, dict[int, str]]:
    """The newest undamaged of `steps`, if any, and of those after it what is wrong with each.

    With `expected`, one with other leaves raises CheckpointMismatch; found out before the large files are read.
    """
    damaged = {}
    for step in reversed(steps):
        path = folder / str(step)
        try:
            found = _read_leaves(path)
            if expected is not None and (lines := leaves.differences(found, expected)):
                more = [f"… and {len(lines) - 5} more"] if len(lines) > 5 else []
                shown = "".join(f"\n  {line}" for line in [*lines[:5], *more])
                raise CheckpointMismatch(f"{path} is of another model:{shown}\n{HOW_TO_GO_ON}")
            checksums.verify(path)
        except checksums.DamagedError as error:
            damaged[step] = str(error)
        else:
            return step, damaged
    return None, damaged


def _read_leaves(path: epath.Path) -> leaves.Leaves:
    """What arrays a checkpoint holds; checked, but not the arrays' own files."""
    checksums.verify(path, LEAVES)
    content = json.loads((path / LEAVES).read_text())
    if str(content["step"]) != path.name:
        raise checksums.DamagedError(f"It is the checkpoint of step {content['step']} under another name.")
    return content["leaves"]


def _warn(damaged: Mapping[int, str]) -> None:
    for step, reason in damaged.items():
        logging.warning("Passing over the checkpoint of step %d, which is damaged: %s", step, reason)


def _list(damaged: Mapping[int, str]) -> str:
    return "".join(f"\n  step {step}: {reason}" for step, reason in damaged.items())


def _steps(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _load(path: epath.Path, wanted: Mapping[str, Any]) -> Any:
    """Nested dicts of the arrays named; the rest of the checkpoint is not read."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here)
        for name, leaf in wanted.items()
    }
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(str(path), leaves.nest(abstract))
