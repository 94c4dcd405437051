"""Metrics and pictures on Weights & Biases (extra `wandb`)."""

import hashlib
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jepa_jax.settings import ConfigError


def require_installed(project: str) -> None:
    """Raises ConfigError if a project is named and the package wandb is missing."""
    if project and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"config.log.wandb is {project!r}, which needs the package wandb: pip install 'jepa_jax[wandb]', or leave "
            "it empty."
        )


class WandbWriter:
    """Logs to one run of a project. A training run that is resumed continues its W&B run.

    Without a network, set WANDB_MODE=offline, and upload later with `wandb sync WORKDIR/wandb/offline-run-…`.
    """

    def __init__(self, project: str, workdir: str, folder: pathlib.Path, settings: Mapping[str, Any]):
        """Starts or resumes the run.

        Args:
            project: the name of the W&B project.
            workdir: of the training run, which identifies the W&B run.
            folder: where wandb writes its files.
            settings: of the training run.

        Raises:
            ConfigError: the package wandb is missing, or cannot start.
        """
        require_installed(project)
        import wandb  # slow to import  # pyright: ignore[reportMissingImports]
        import wandb.errors  # pyright: ignore[reportMissingImports]

        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=project,
                id=hashlib.sha256(workdir.encode()).hexdigest()[:16],
                name=pathlib.PurePosixPath(workdir).name,
                dir=str(folder),
                config=dict(settings),
                resume="allow",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"config.log.wandb is {project!r}, and W&B cannot start: {error} Without a network or an account, set "
                "WANDB_MODE=offline."
            ) from error
        # W&B's own step must grow. Steps that a resumed run repeats are logged again, with the same values.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the scalars of a step (1-based)."""
        self._run.log({"step": step, **metrics})

    def write_images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "_ _ 3"]]) -> None:
        """Logs images of a step by name."""
        self._run.log({"step": step, **{name: self._image(image) for name, image in images.items()}})

    def close(self) -> None:
        """Waits until everything is written or uploaded."""
        self._run.finish()
