"""The folder of one training run: its settings, the versions it began with, and its metrics cut back on resume."""

import importlib.metadata
import json
import pathlib
import platform
import subprocess
from typing import Any

from absl import logging
from etils import epath

from jepa_jax.config import Config, ConfigError, difference, parse, to_dict
from jepa_jax.data import sprites

CONFIG, VERSIONS = "config.json", "versions.json"
# Settings that a run may go on with changed, since what it computes does not depend on them.
FREE_TO_CHANGE = (
    "config.data.workers",
    "config.mesh.",  # up to the order of sums, of which restoring a checkpoint tells
    "config.data.prefetch",
    "config.data.max_skip_fraction",
    "config.checkpoint.",
    "config.log.",
    "config.audit.",
    "config.probe",
)
PACKAGES = ("jepa_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def locate(path: epath.PathLike) -> epath.Path:
    """The path; absolute, if it is one of this machine and not gs://… or the like."""
    found = epath.Path(path)
    return found if is_remote(found) else found.absolute()


def is_remote(path: epath.Path) -> bool:
    """Whether it is on an object store: files are written whole, and folders cannot be renamed in one go."""
    return "://" in str(path)


def open_workdir(path: epath.PathLike, config: Config, *, overwrite: bool = False) -> epath.Path:
    """Makes the folder of a run, or opens it again for the same run.

    Args:
        path: the folder; may not exist yet. With several processes only process 0 calls this.
        config: of the run to start or resume.
        overwrite: moves what is there aside, to PATH.old-1, -2, …, and starts anew.

    Raises:
        ConfigError: the folder belongs to a run with other settings (says which), or to something else.
    """
    path = locate(path)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"The working directory {path} is a file; name a folder.")
    # A kill between making the folder and writing the settings leaves these two at most.
    others = (
        sorted({entry.name for entry in path.iterdir()} - {VERSIONS, VERSIONS + ".tmp", CONFIG + ".tmp"})
        if path.exists()
        else []
    )
    if others and CONFIG not in others:
        shown = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        raise ConfigError(f"{path} is not the folder of a training run (no {CONFIG}; it holds {shown}). Name another.")
    if others and overwrite:
        logging.warning("Moved the run in %s aside, to %s.", path, _move_aside(path))
    elif others:
        _require_same(path, config)
        return path
    path.mkdir(parents=True, exist_ok=True)
    _write(path / VERSIONS, json.dumps(versions(), indent=2) + "\n")
    save_config(path, config)
    return path


def save_config(workdir: epath.PathLike, config: Config) -> None:
    """Writes config.json; afterwards the folder is that of a run."""
    _write(locate(workdir) / CONFIG, json.dumps(to_dict(config), indent=2) + "\n")


def load_config(workdir: epath.PathLike) -> Config:
    """The settings of the run in `workdir`.

    Raises:
        ConfigError: no such folder, no config.json in it, or one this version cannot read.
    """
    workdir = locate(workdir)
    if not workdir.is_dir():
        raise ConfigError(f"There is no folder {workdir}; name the --workdir of a training run.")
    file = workdir / CONFIG
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict):
            raise ConfigError("it holds no settings.")
        return parse(Config, content)
    except FileNotFoundError:
        raise ConfigError(f"{workdir} is not the folder of a training run: it has no {CONFIG}.") from None
    except ValueError as error:  # not JSON, not UTF-8, or a ConfigError
        raise ConfigError(f"{file} is not a configuration this version can read: {error}") from error


def versions() -> dict[str, Any]:
    """Versions of Python, of the packages that decide what a run computes and of the sprites (the set, not the code),
    and the commit if run from a checkout.
    """
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found | {"sprites": sprites.VERSION, "commit": _commit()}


def cut_back(metrics: pathlib.Path, step: int) -> None:
    """Drops the lines of a metrics.jsonl that a run resumed at `step` will write again: those of later steps.

    `step` counts steps done; a line's "step" is the number of steps done when it was written. A last line cut short by
    a kill is dropped too. Without such a file nothing happens.
    """
    if not metrics.exists():
        return
    kept = []
    for line in filter(None, metrics.read_text(errors="replace").split("\n")):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, TypeError, KeyError):
            logging.warning("Dropped a line of %s that is not a record: %.80s", metrics, line)
    _write(epath.Path(metrics), "".join(kept))


def _require_same(path: epath.Path, config: Config) -> None:
    try:
        lines = [line for line in difference(load_config(path), config) if not line.startswith(FREE_TO_CHANGE)]
    except ConfigError as error:
        lines = [str(error)]
    if lines:
        raise ConfigError(
            f"{path} holds a run with other settings (there → here):\n  " + "\n  ".join(lines) + "\n"
            "Use another --workdir, or --resume=overwrite to move that run aside and start anew."
        )


def _move_aside(path: epath.Path) -> epath.Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    return path.rename(aside)


def _write(path: epath.Path, text: str) -> None:
    """All of the file or, if killed, none of it."""
    if is_remote(path):
        path.write_text(text)
        return
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _commit() -> str | None:
    """The commit of the checkout this package runs from, with -dirty if it was changed; None if installed."""
    git = ["git", "-C", str(pathlib.Path(__file__).parent)]
    try:  # A package installed into somebody else's checkout is not one of its files.
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", pathlib.Path(__file__).name], check=True, capture_output=True
        )
        described = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(described, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
