"""The folder of a training run: settings, package versions, and metrics truncated on resume."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any, TypeVar

from absl import logging
from etils import epath

from jepa_jax.config import Config, RunConfig
from jepa_jax.data import sources
from jepa_jax.files.paths import is_remote, locate, reachable, write_text
from jepa_jax.run_dir import changes
from jepa_jax.settings import ConfigError, parse, to_dict

CONFIG, VERSIONS, LOCK = "config.json", "versions.json", "lock.json"
FINE_TUNING = "head"  # a setting that only fine-tuning has
PACKAGES = ("jepa_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


class WrongKindError(ConfigError):
    """The folder is of a pretraining run instead of a fine-tuning run, or the reverse."""


def open_workdir(
    path: epath.PathLike, config: RunConfig, *, overwrite: bool = False, extend: bool = False
) -> epath.Path:
    """Creates the folder of a run, or reopens it to resume the same run. Call in process 0 only.

    Args:
        path: the folder; it need not exist.
        config: of the run to start or resume.
        overwrite: moves an existing run aside, to PATH.old-1, -2, …, and starts from step 0.
        extend: accepts a change of the number of steps and of all other settings that `changes` calls extendable.

    Raises:
        ConfigError: the folder has a run with other settings (the message lists them), or is not a run's folder.
    """
    path = locate(path)
    if is_run(path) and overwrite:
        logging.warning("Moved the run in %s aside, to %s.", path, _move_aside(path))
    elif is_run(path):
        _require_same(path, config, extend)
        return path
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / VERSIONS, versions())
    save_config(path, config)
    return path


def is_run(path: epath.PathLike) -> bool:
    """Whether the folder contains a run; False if it does not exist or is empty.

    Raises:
        ConfigError: it is a file, a folder with other files, or a URL that cannot be read.
    """
    path = reachable(path)
    if not path.exists():
        if not is_remote(path) and os.path.islink(path):
            raise ConfigError(
                f"The working directory {path} is a symbolic link to {os.readlink(path)}, which does not exist. Create "
                "that folder, or use another --workdir."
            )
        return False
    if not path.is_dir():
        raise ConfigError(f"The working directory {path} is a file; use a folder.")
    # A run killed before it wrote its settings leaves at most these.
    begun = {VERSIONS, VERSIONS + ".tmp", CONFIG + ".tmp"}
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in begun and not _is_lock(entry.name))
    if others and CONFIG not in others:
        shown = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        raise ConfigError(
            f"{path} is not the folder of a training run (no {CONFIG}; it contains {shown}). Use another --workdir."
        )
    return bool(others)


def save_config(workdir: epath.PathLike, config: RunConfig) -> None:
    """Writes config.json, which makes the folder a run's folder."""
    write_json(locate(workdir) / CONFIG, to_dict(config))


def write_json(file: epath.Path, content: Any) -> None:
    """Writes a file of a run's folder atomically."""
    write_text(file, json.dumps(content, indent=2) + "\n")


def recorded_config(workdir: epath.PathLike, schema: type[AnyConfig] = Config) -> AnyConfig | None:
    """The settings of the run in `workdir`; None if it contains no run.

    Raises:
        ConfigError: they cannot be read.
    """
    if not (locate(workdir) / CONFIG).exists():
        return None
    try:
        return load_config(workdir, schema)
    except ConfigError as error:
        raise ConfigError(f"{error}\nUse another --workdir, or --resume=overwrite to move that run aside.") from error


def load_config(workdir: epath.PathLike, schema: type[AnyConfig] = Config) -> AnyConfig:
    """The settings of the run in `workdir`.

    Raises:
        ConfigError: no such folder, no config.json in it, or one this version cannot read.
    """
    workdir = reachable(workdir)
    if not workdir.is_dir():
        raise ConfigError(f"{workdir} does not exist; use the --workdir of a training run.")
    file = workdir / CONFIG
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict):
            raise ConfigError("it contains no settings.")
        _require_kind(workdir, content, schema)
        return parse(schema, content)
    except FileNotFoundError:
        raise ConfigError(f"{workdir} is not the folder of a training run: it has no {CONFIG}.") from None
    except WrongKindError:
        raise
    except ValueError as error:  # not JSON, not UTF-8, or a ConfigError
        raise ConfigError(f"{file} is not a configuration this version can read: {error}") from error


def versions() -> dict[str, Any]:
    """Versions of Python, of the packages that affect results and of rendered sets, and the commit of a checkout."""
    installed: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = None
    return installed | sources.rendered_versions() | {"commit": _commit()}


def cut_back(metrics: pathlib.Path, step: int) -> None:
    """Drops the lines of a metrics.jsonl after `step`, which a run resumed there will write again.

    An incomplete last line of a killed run is dropped too. Does nothing if the file does not exist.
    """
    if not metrics.exists():
        return
    kept = []
    for line in filter(None, metrics.read_text(errors="replace").split("\n")):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, TypeError, KeyError):
            logging.warning("Dropped an invalid line of %s: %.80s", metrics, line)
    write_text(metrics, "".join(kept))


def _require_kind(workdir: epath.Path, content: dict[str, Any], schema: type[RunConfig]) -> None:
    found, wanted = (
        "fine-tuning" if kind else "pretraining" for kind in (FINE_TUNING in content, schema is not Config)
    )
    if found != wanted:
        raise WrongKindError(f"{workdir} is the folder of a {found} run; expected one of {wanted}.")


def _require_same(path: epath.Path, config: RunConfig, extend: bool) -> None:
    recorded = recorded_config(path, type(config))
    assert recorded is not None
    differences = changes.between(recorded, config)
    if refusal := changes.refusal(differences, extend):
        raise ConfigError(f"{path} contains a run with other settings (recorded → given):{refusal}")
    for line in differences.get("rounding", []):
        if not line.startswith("config.mesh."):  # restoring logs a change of the actual devices
            logging.warning("%s. Results agree with the run so far up to rounding, but not bit for bit.", line)


def _is_lock(name: str) -> bool:
    return name.startswith(LOCK)  # also the leftovers of a stale lock


def _move_aside(path: epath.Path) -> epath.Path:
    """Moves the folder's contents to a new folder beside it, config.json last.

    The folder itself stays, so that it may be a symbolic link or a mount point, and so that the lock stays in place.
    For a symbolic link the new folder is beside the link's target, which is on the same disk.
    """
    if is_remote(path):
        command = f": gcloud storage mv {path} {path}.old-1" if str(path).startswith("gs://") else "."
        raise ConfigError(
            f"--resume=overwrite cannot move {path} aside, since object stores cannot rename folders. Use another "
            f"--workdir, or move the run yourself{command}"
        )
    folder = pathlib.Path(os.path.realpath(path))
    number = 1
    while os.path.lexists(aside := folder.with_name(f"{folder.name}.old-{number}")):
        number += 1
    try:
        aside.mkdir()
        for name in sorted(os.listdir(folder), key=lambda name: name == CONFIG):
            if not _is_lock(name):
                os.rename(folder / name, aside / name)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.rmdir()  # fails unless nothing has been moved
        raise ConfigError(
            f"Cannot move the run in {folder} to {aside}: {error.strerror}. Use another --workdir, or move it yourself."
        ) from error
    return epath.Path(aside)


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, with -dirty if it has changes; None if installed."""
    git = ["git", "-C", str(pathlib.Path(__file__).parent)]
    try:  # ls-files fails if the package is installed inside the checkout of another project
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", pathlib.Path(__file__).name], check=True, capture_output=True
        )
        described = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(described, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
