"""Input pipeline for training and evaluation: sources → order → decode → augment → batches.

Training reads `TrainBatches` through `device_prefetch`; evaluation reads `EvaluationSet`. Files are decoded on the
host, in worker processes that never touch an accelerator; JAX renders procedural clips, in the training step if
possible.
"""

from jepa_jax.data.evaluation_clips import EvaluationSet
from jepa_jax.data.faults import DecodeError
from jepa_jax.data.prefetch import DevicePrefetch, device_prefetch
from jepa_jax.data.skipped_files import Skip, SkipLedger, TooManySkippedError
from jepa_jax.data.sources import Source, describe, open_source, open_sources
from jepa_jax.data.train_batches import Batch, TrainBatches, batch_shapes, new_ledger, renders_in_step
from jepa_jax.data.workers.pool import WorkersDiedError
from jepa_jax.data.workers.timing import Throughput

__all__ = [
    "Batch",
    "DecodeError",
    "DevicePrefetch",
    "EvaluationSet",
    "Skip",
    "SkipLedger",
    "Source",
    "Throughput",
    "TooManySkippedError",
    "TrainBatches",
    "WorkersDiedError",
    "batch_shapes",
    "describe",
    "device_prefetch",
    "new_ledger",
    "open_source",
    "open_sources",
    "renders_in_step",
]
