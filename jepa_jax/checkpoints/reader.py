"""Reads checkpoints: lists and verifies them, and loads their encoder. Writes nothing."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath

from jepa_jax.checkpoints import integrity, tree_paths
from jepa_jax.config import Config
from jepa_jax.files.paths import is_remote, locate
from jepa_jax.run_dir.workdir import load_config

LEAVES = "leaves.json"
NEXT_STEPS = "Use another --workdir, or --resume=overwrite to move this one aside and start again."


class CheckpointError(Exception):
    """A checkpoint cannot be used. The message has the path, the reason and what to do."""


class CheckpointMismatch(CheckpointError):  # noqa: N818
    """The checkpoint is undamaged, but of another model."""


class CheckpointDamaged(CheckpointError):  # noqa: N818
    """Files of the checkpoint are missing, truncated or changed."""


@dataclasses.dataclass(frozen=True)
class EncoderCheckpoint:
    """A trained encoder, and the settings it was trained with.

    Attributes:
        config: of the training run.
        params: nested dict; the EMA's parameters, or the online encoder's if EMA is off.
        step: of training.
        predictor_params: nested dict, if asked for.
    """

    config: Config
    params: Any
    step: int
    predictor_params: Any = None


def saved_steps(workdir: epath.PathLike) -> list[int]:
    """Steps with a checkpoint in `workdir`, including damaged ones, ascending."""
    folder = checkpoint_folder(workdir)
    paths = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return sorted(int(path.name) for path in paths if is_finished(path))


def read_encoder(workdir: epath.PathLike, step: int | None = None, *, predictor: bool = False) -> EncoderCheckpoint:
    """Loads only the encoder of a training run, from its newest good checkpoint or from `step`.

    The arrays are loaded to this process's first device, whatever devices the run was trained on.

    Args:
        workdir: of the run.
        step: of the checkpoint.
        predictor: also load the predictor.

    Raises:
        jepa_jax.config.ConfigError: the folder does not exist, or has no readable config.json.
        CheckpointError: the run has no checkpoint, or none of that step.
        CheckpointDamaged: the requested checkpoint is damaged, or all are.
    """
    config, (chosen, path) = load_config(workdir), choose(workdir, step)
    params = load_group(path, encoder_group(config))
    return EncoderCheckpoint(config, params, chosen, load_group(path, "params/predictor") if predictor else None)


def encoder_group(config: Config) -> str:
    """Where the state of a training run has the encoder that is evaluated."""
    return "target_params" if config.target == "ema" else "params/encoder"


def choose(workdir: epath.PathLike, step: int | None = None) -> tuple[int, epath.Path]:
    """Returns the newest good checkpoint of a run, or that of `step`: its step and folder.

    Raises:
        CheckpointError: the run has no checkpoint, or none of that step.
        CheckpointDamaged: the requested checkpoint is damaged, or all are.
    """
    steps, folder = saved_steps(workdir), checkpoint_folder(workdir)
    if not steps:
        raise CheckpointError(f"{workdir} has no checkpoint yet.")
    if step is not None and step not in steps:
        raise CheckpointError(f"{workdir} has no checkpoint of step {step}; it has {_steps(steps)}.")
    chosen, damaged = newest_good(folder, steps if step is None else [step])
    if chosen is None:
        raise CheckpointDamaged(
            f"No usable checkpoint in {folder}. Damaged:{list_damaged(damaged)}\nIt has {_steps(steps)}."
        )
    warn_damaged(damaged)
    return chosen, folder / str(chosen)


def has_group(path: epath.Path, group: str) -> bool:
    """Whether a checkpoint has arrays below `group`."""
    return any(name.startswith(f"{group}/") for name in _read_leaves(path))


def load_group(path: epath.Path, group: str) -> Any:
    """Loads the arrays of a checkpoint below `group`, such as params/encoder, as nested dicts."""
    wanted = {
        name: jax.ShapeDtypeStruct(leaf["shape"], jnp.dtype(leaf["dtype"]))
        for name, leaf in _read_leaves(path).items()
        if name.startswith(f"{group}/")
    }
    if not wanted:
        raise CheckpointError(f"{path} does not contain {group}.")
    params = load_arrays(path, wanted)
    for key in group.split("/"):
        params = params[key]
    return params


def checkpoint_folder(workdir: epath.PathLike) -> epath.Path:
    """The folder of a run's checkpoints."""
    return locate(workdir) / "checkpoints"


def is_finished(path: epath.Path) -> bool:
    """Whether the checkpoint was completely written. It may have been damaged since."""
    return (path / integrity.CHECKSUMS).exists() if is_remote(path) else path.is_dir()


def newest_good(
    folder: epath.Path, steps: list[int], expected: tree_paths.Leaves | None = None
) -> tuple[int | None, dict[int, str]]:
    """The newest undamaged step, if any, and what is wrong with each step after it.

    Raises:
        CheckpointMismatch: its arrays differ from `expected`. Detected before the large files are read.
    """
    damaged = {}
    for step in reversed(steps):
        path = folder / str(step)
        try:
            found = _read_leaves(path)
            if expected is not None and (lines := tree_paths.differences(found, expected)):
                more = [f"… and {len(lines) - 5} more"] if len(lines) > 5 else []
                shown = "".join(f"\n  {line}" for line in [*lines[:5], *more])
                raise CheckpointMismatch(f"{path} is of another model:{shown}\n{NEXT_STEPS}")
            integrity.verify(path)
        except integrity.DamagedError as error:
            damaged[step] = str(error)
        else:
            return step, damaged
    return None, damaged


def _read_leaves(path: epath.Path) -> tree_paths.Leaves:
    """The dtype and shape of a checkpoint's arrays. Verifies leaves.json, not the files of the arrays."""
    integrity.verify(path, LEAVES)
    content = json.loads((path / LEAVES).read_text())
    if str(content["step"]) != path.name:
        raise integrity.DamagedError(f"It is the checkpoint of step {content['step']} under another name.")
    return content["leaves"]


def warn_damaged(damaged: Mapping[int, str]) -> None:
    """Logs each damaged checkpoint that is skipped."""
    for step, reason in damaged.items():
        logging.warning("Skipping the checkpoint of step %d, which is damaged: %s", step, reason)


def list_damaged(damaged: Mapping[int, str]) -> str:
    """Formats the damaged checkpoints and what is wrong with each for an error message."""
    return "".join(f"\n  step {step}: {reason}" for step, reason in damaged.items())


def _steps(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def load_arrays(path: epath.Path, wanted: Mapping[str, Any]) -> Any:
    """Loads the arrays in `wanted`, by path, as nested dicts. The rest of the checkpoint is not read."""
    from orbax.checkpoint import v1 as ocp  # slow to import, and a new run does not need it

    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here)
        for name, leaf in wanted.items()
    }
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(str(path), tree_paths.nest(abstract))
