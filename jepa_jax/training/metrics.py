"""Metrics on disk: metrics.jsonl, and the same for TensorBoard. With several processes, what each tells of its data."""

import json
import pathlib
from collections.abc import Mapping

import tensorboardX

from jepa_jax.training.workdir import cut_back


def metrics_file(process: int = 0) -> str:
    """The name of the file of one process."""
    return f"metrics.process-{process}.jsonl" if process else "metrics.jsonl"


class MetricsWriter:
    """Appends one line a record; on resume, what lies after the restored step is taken back first.

    Process 0 writes all. Of what the others know nothing is different but their data (`data/…`): each writes that to a
    file of its own.
    """

    def __init__(self, workdir: pathlib.Path, step: int, process: int = 0):
        """Opens the files of a run that stands at `step` updates."""
        file = workdir / metrics_file(process)
        cut_back(file, step)
        self._file = file.open("a", encoding="utf-8")
        self._tensorboard = None
        if process == 0:
            self._tensorboard = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes scalars of the update number `step` (1-based)."""
        if self._tensorboard is None:
            metrics = {name: value for name, value in metrics.items() if name.startswith("data/")}
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            for name, value in metrics.items():
                self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
