"""Clips for training and evaluation: sources → order → decode → augment → batches.

Training reads `TrainBatches` through `device_prefetch`; evaluation reads `EvaluationSet`. Files are decoded on hosts,
in worker processes that never touch a device; sprites are rendered by JAX, in the training step where possible.
"""

from jepa_jax.data.decode import DecodeError
from jepa_jax.data.evaluation import EvaluationSet
from jepa_jax.data.loader import Batch, TrainBatches, batch_shapes, new_ledger, renders_in_step
from jepa_jax.data.prefetch import DevicePrefetch, device_prefetch
from jepa_jax.data.skipped import Skip, SkipLedger, TooManySkippedError
from jepa_jax.data.sources import Source, describe, open_source, open_sources
from jepa_jax.data.stages import Throughput
from jepa_jax.data.workers import WorkersDiedError

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
