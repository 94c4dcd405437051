"""Continuing a run for more steps or with other schedules: `--resume=extend`.

Schedules are functions of the step and of their planned length (`schedules.length`), so there are two ways to extend
them. `hold` keeps the planned length: each schedule ends as planned, then keeps its final value, and no value jumps at
the step where the run is extended. `stretch` plans all schedules for the new length, as if the run had been that long
from the start; values may jump at that step.

config.json is updated to the new settings, so the same command without `--resume=extend` resumes the run.
WORKDIR/extensions.json records what was changed and at which step.
"""

import dataclasses
import json
from typing import Any

import jax.numpy as jnp
from absl import logging
from etils import epath

from jepa_jax.config import Config, RunConfig, Schedules
from jepa_jax.run_dir import changes, workdir
from jepa_jax.settings import ConfigError
from jepa_jax.training import schedules

EXTENSIONS = "extensions.json"


@dataclasses.dataclass(frozen=True)
class Extension:
    """A change of a run's settings at a step.

    Attributes:
        step: number of steps done before the change.
        old: settings before.
        new: settings after.
        data: a line for each source whose data changed.
    """

    step: int
    old: RunConfig
    new: RunConfig
    data: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """A line for each changed setting or source."""
        return [*changes.between(self.old, self.new).get("extendable", []), *self.data]


def schedule_steps(config: RunConfig, path: epath.PathLike, extend: Schedules | None) -> int:
    """The value of `schedule_steps` to resume the run in a folder with.

    Args:
        config: the requested settings. A nonzero `schedule_steps` is returned unchanged; 0 is replaced according to
            `extend` and the recorded run.
        path: the folder.
        extend: whether schedules hold or stretch; None if the run is not extended.

    Raises:
        ConfigError: the folder has no run to extend, or its settings cannot be read.
    """
    recorded = workdir.recorded_config(path, type(config))
    if recorded is None and extend is not None:
        raise ConfigError(f"There is no run in {path} to extend. Check --workdir, or remove --resume=extend.")
    if config.schedule_steps or recorded is None:
        return config.schedule_steps
    if extend is None or (extend == "hold" and config.steps == recorded.steps):
        return recorded.schedule_steps
    planned = schedules.length(recorded) if extend == "hold" else config.steps
    return planned if planned != config.steps else 0


def begin(extension: Extension, folder: epath.Path) -> str:
    """Records an extension in the run's folder and returns its description for the log. Call in process 0 only.

    Raises:
        ConfigError: the run has already done more steps than requested.
    """
    old, new = extension.old, extension.new
    if extension.step > new.steps:
        raise ConfigError(
            f"{folder} has done {extension.step} steps; config.steps is {new.steps}. "
            f"Give --config.steps of at least {extension.step}."
        )
    listed = _load(folder)
    entry = {
        "step": extension.step,
        "steps": [old.steps, new.steps],
        "schedule_steps": [schedules.length(old), schedules.length(new)],
        "changes": extension.lines,
    }
    if entry not in listed[-1:]:  # already listed if the process was killed before it wrote config.json
        workdir.write_json(folder / EXTENSIONS, [*listed, entry])
    workdir.save_config(folder, new)
    return describe(extension, folder)


def describe(extension: Extension, folder: epath.Path) -> str:
    """The changes, the effect on schedules, and schedule values at this step and at the end, as old → new."""
    old, new = extension.old, extension.new
    before, after = schedules.length(old), schedules.length(new)
    if before == after:
        planned = f"Schedules hold: planned for {after} steps as before, then they keep their final values."
        if new.steps > after:
            planned += f" (--schedules=stretch would plan them for {new.steps}.)"
    else:
        planned = (
            f"Schedules stretch: planned for {after} steps instead of {before}. (--schedules=hold would end them as "
            "planned, then keep their final values.)"
        )
    step = max(extension.step, 1)
    rows = [("schedule", f"at step {step}", f"at the end, step {old.steps} → {new.steps}")]
    now, end = (values(old, step), values(new, step)), (values(old, old.steps), values(new, new.steps))
    for name in now[0] | now[1]:
        of_now, of_end = (f"{_text(was.get(name))} → {_text(will.get(name))}" for was, will in (now, end))
        rows.append((name, of_now, of_end))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return (
        f"Extending the run in {folder} at step {extension.step}:{changes.indented(extension.lines)}\n{planned}"
        + changes.indented(table)
    )


def values(config: RunConfig, step: int) -> dict[str, float]:
    """The values of a run's schedules, EMA decay included, at a step (1-based)."""
    steps = schedules.length(config)
    held = schedules.hold(steps, step)
    found = {
        "learning_rate": float(schedules.learning_rate(config.optim, steps, held)),
        "weight_decay": float(schedules.weight_decay(config.optim, steps, held)),
    }
    if not isinstance(config, Config):
        return found
    progress = jnp.minimum(jnp.float32(step - 1) / steps, 1.0)
    for name, objective in config.objectives.items():
        found[f"{name} weight"] = float(objective.weight(progress))
    if config.target == "ema":
        found["ema_decay"] = float(schedules.ema_decay(config.ema, steps, held))
    return found


def warn_if_before(folder: epath.Path, step: int) -> None:
    """Warns if steps before the last extension will be repeated with the new settings. Call in process 0 only."""
    extended = max((entry["step"] for entry in _load(folder)), default=0)
    if step < extended:
        logging.warning(
            "The run was extended at step %d, but its newest usable checkpoint is step %d: the steps between are "
            "repeated with the extended settings.",
            extended,
            step,
        )


def _load(folder: epath.Path) -> list[dict[str, Any]]:
    file = folder / EXTENSIONS
    if not file.exists():
        return []
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(
            f"{file} is not a list of extensions ({error}). It is a record only; delete it to resume."
        ) from error


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
