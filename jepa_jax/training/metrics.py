"""Metrics on disk: metrics.jsonl, and the same for TensorBoard."""

import json
import pathlib
from collections.abc import Mapping

import tensorboardX

from jepa_jax.training.workdir import cut_back


class MetricsWriter:
    """Appends one line a record; on resume, what lies after the restored step is taken back first."""

    def __init__(self, workdir: pathlib.Path, step: int):
        """Opens the files of a run that stands at `step` updates."""
        cut_back(workdir / "metrics.jsonl", step)
        self._file = (workdir / "metrics.jsonl").open("a", encoding="utf-8")
        self._tensorboard = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes scalars of the update number `step` (1-based)."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._tensorboard.close()
