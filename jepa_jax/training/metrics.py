"""Metrics on disk: metrics.jsonl and TensorBoard events. Processes other than 0 log only their input pipeline."""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from jepa_jax.run_dir.workdir import cut_back


def metrics_file(process: int = 0) -> str:
    """The name of a process's metrics file."""
    return f"metrics.process-{process}.jsonl" if process else "metrics.jsonl"


class MetricsWriter:
    """Appends one line per record. On resume, lines after the restored step are removed first.

    Process 0 writes all metrics. Every other process has the same metrics except those of its input pipeline
    (`data/…`), which it writes to its own file.
    """

    def __init__(self, workdir: pathlib.Path, step: int, process: int = 0):
        """Opens the files of a run that has done `step` updates."""
        file = workdir / metrics_file(process)
        cut_back(file, step)
        self._file = file.open("a", encoding="utf-8")
        self._tensorboard = None
        if process == 0:
            self._tensorboard = ScalarWriter(workdir / "tensorboard", purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the scalars of a step (1-based)."""
        if self._tensorboard is None:
            metrics = {name: value for name, value in metrics.items() if name.startswith("data/")}
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            self._tensorboard.write(step, metrics, time.time())

    def close(self) -> None:
        """Flushes and closes the files."""
        with contextlib.ExitStack() as both:
            both.callback(self._file.close)
            if self._tensorboard is not None:
                both.callback(self._tensorboard.close)


class ScalarWriter:
    """Writes a TensorBoard event file in the calling thread.

    tensorboardX's own writer uses a background thread. After an error there, such as a full disk, its queue is no
    longer emptied and the run blocks.
    """

    def __init__(self, folder: pathlib.Path, purge_step: int):
        """Hides records of `purge_step` and later steps in the folder's existing files."""
        # tensorboardX is slow to import; here, while the step is compiled.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        folder.mkdir(parents=True, exist_ok=True)
        self._messages: Any = event_pb2  # protobuf makes its classes at import
        self._scalar = scalar
        self._writer = EventsWriter(str(folder / "events"))
        start = self._messages.SessionLog(status=self._messages.SessionLog.START)
        self._writer.write_event(self._messages.Event(step=purge_step, file_version="brain.Event:2"))
        self._writer.write_event(self._messages.Event(step=purge_step, session_log=start))

    def write(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Writes the scalars of a step with a time stamp in seconds since the epoch."""
        for name, value in values.items():
            event = self._messages.Event(step=step, wall_time=seconds, summary=self._scalar(name, value))
            self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
