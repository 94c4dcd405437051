"""Metrics in metrics.jsonl and TensorBoard events. Processes other than 0 log only their input pipeline."""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jepa_jax.pictures import film
from jepa_jax.run_dir.workdir import cut_back
from jepa_jax.training.tracking.wandb_writer import WandbWriter


def metrics_file(process: int = 0) -> str:
    """The name of a process's metrics file."""
    return f"metrics.process-{process}.jsonl" if process else "metrics.jsonl"


class MetricsWriter:
    """Appends one line per record. On resume, lines after the restored step are removed first.

    Process 0 writes all metrics. Every other process has the same metrics except those of its input pipeline
    (`data/…`), which it writes to its own file.
    """

    def __init__(self, workdir: pathlib.Path, step: int, process: int = 0, wandb: WandbWriter | None = None):
        """Opens the files of a run that has done `step` updates; process 0 also writes to `wandb`."""
        file = workdir / metrics_file(process)
        cut_back(file, step)
        self._file = file.open("a", encoding="utf-8")
        self._tensorboard, self._wandb = None, wandb
        if process == 0:
            self._tensorboard = EventWriter(workdir / "tensorboard", purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the scalars of a step (1-based)."""
        if self._tensorboard is None:
            metrics = {name: value for name, value in metrics.items() if name.startswith("data/")}
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            self._tensorboard.write(step, metrics, time.time())
        if self._wandb is not None:
            self._wandb.write(step, metrics)

    def write_images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "_ _ 3"]]) -> None:
        """Writes images of a step (1-based) by name; only process 0 does."""
        if self._tensorboard is not None:
            self._tensorboard.write_images(step, images, time.time())
        if self._wandb is not None:
            self._wandb.write_images(step, images)

    def close(self) -> None:
        """Flushes and closes the files."""
        with contextlib.ExitStack() as both:
            both.callback(self._file.close)
            if self._wandb is not None:
                both.callback(self._wandb.close)
            if self._tensorboard is not None:
                both.callback(self._tensorboard.close)


class EventWriter:
    """Writes a TensorBoard event file in the calling thread.

    tensorboardX's own writer uses a background thread. After an error there, such as a full disk, its queue is no
    longer emptied and the run blocks.
    """

    def __init__(self, folder: pathlib.Path, purge_step: int):
        """Hides records of `purge_step` and later steps in the folder's existing files."""
        # tensorboardX is slow to import; here, while the step is compiled.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.summary import scalar

        folder.mkdir(parents=True, exist_ok=True)
        self._messages: Any = event_pb2  # protobuf makes its classes at import
        self._summaries: Any = summary_pb2
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

    def write_images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "_ _ 3"]], seconds: float) -> None:
        """Writes images of a step by name, with a time stamp in seconds since the epoch."""
        for name, image in images.items():
            height, width, channels = image.shape
            content = self._summaries.Summary.Image(
                height=height, width=width, colorspace=channels, encoded_image_string=film.png(image)
            )
            summary = self._summaries.Summary(value=[self._summaries.Summary.Value(tag=name, image=content)])
            self._writer.write_event(self._messages.Event(step=step, wall_time=seconds, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
