"""Features of a whole set of clips, written once into arrays that exist from the first batch on."""

import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jepa_jax import models, pixels
from jepa_jax.config import EncoderConfig
from jepa_jax.probing.config import Tokens
from jepa_jax.progress import Progress

Encode = Callable[[Num[Array | np.ndarray, "B F Y X 3"]], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Features:
    """What probes see of a set of n clips.

    Attributes:
        tokens: "mean" [n, E] float32, "all" [n, N, E] in the encoder's own type; a np.memmap where kept on disk.
        labels: of each task, the class of every clip, int32 [n].
        items: number of every clip within its set, int32 [n].
        seconds: how long it took, decoding and compilation included.
    """

    tokens: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    items: np.ndarray
    seconds: float

    def __len__(self) -> int:
        return len(next(iter(self.tokens.values())))


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where features go: to memory, but all-token features of more than `memory_limit` bytes to a file in `folder`."""

    memory_limit: int
    folder: pathlib.Path

    def allocate(self, kind: str, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """An uninitialised array. Its file has no name: it is gone with the process, however that ends.

        Raises:
            OSError: less room on the disk than the array needs.
        """
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if kind == "mean" or size <= self.memory_limit:
            return _aligned_empty(shape, dtype)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            dims = " × ".join(map(str, shape))
            raise OSError(
                f"features of all tokens ({dims}, {np.dtype(dtype)}) take {size / 2**30:.1f} GiB, and "
                f"{self.folder} has {free / 2**30:.1f} GiB left. Write the results to another disk, probe mean tokens, "
                "or take fewer clips."
            )
        with tempfile.TemporaryFile(dir=self.folder) as file:
            return np.memmap(file, dtype=dtype, mode="w+", shape=tuple(shape))


def make_encode(
    config: EncoderConfig, dtype: str, kinds: Sequence[Tokens]
) -> Callable[[Any, Num[Array | np.ndarray, "B F Y X 3"]], Mapping[str, jax.Array]]:
    """A jitted function from encoder parameters and clips (8-bit values) to the features that these probes read.

    "all" is the encoder's plain output, its last level; "mean" its mean over tokens, taken in float32.
    """
    encoder = models.build_encoder(config, dtype)

    @jax.jit
    def encode(params: Any, video: jax.Array) -> dict[str, Float[Array, "B *S E"]]:
        tokens_BxNxE = cast(jax.Array, encoder.apply({"params": params}, pixels.normalise(video)))
        features = {"mean": tokens_BxNxE.astype(jnp.float32).mean(axis=1), "all": tokens_BxNxE}
        return {kind: features[kind] for kind in kinds}

    return encode


def extract(
    encoders: Mapping[str, Encode], batches: Iterable[Mapping[str, Any]], items: int, storage: Storage, name: str
) -> dict[str, Features]:
    """Features of all clips of `batches` by each of the encoders; every clip is decoded once.

    Args:
        encoders: features of one batch; every batch has the same shape, so each compiles once.
        batches: `video`, `labels` {task: int [B]} and `valid` bool [B], False where the last batch is filled up.
        items: at most this many clips come.
        storage: where the features go.
        name: of the set, for the progress bar and errors.

    Raises:
        FloatingPointError: an encoder's output is not finite.
        ValueError: no clips came.
    """
    arrays: dict[str, dict[str, np.ndarray]] = {encoder: {} for encoder in encoders}
    labels: dict[str, list[np.ndarray]] = {}
    items_seen: list[np.ndarray] = []
    filled = 0

    def store(encoded: Mapping[str, Mapping[str, jax.Array]], valid: np.ndarray) -> None:
        nonlocal filled
        rows = slice(filled, filled + int(valid.sum()))
        for encoder, kinds in encoded.items():
            for kind, value in kinds.items():
                if kind not in arrays[encoder]:
                    arrays[encoder][kind] = storage.allocate(kind, (items, *value.shape[1:]), value.dtype)
                # On CPU this is a view of the device's memory, so the batch is not held twice.
                batch = np.asarray(value)
                if not np.isfinite(batch).all():
                    raise FloatingPointError(f"the encoder's output on the {name} clips is not finite.")
                arrays[encoder][kind][rows] = batch if valid.all() else batch[valid]
        filled = rows.stop

    with Progress(items, "clips", name=f"{name} features") as bar:
        seen, waiting = 0, None  # one batch is encoded while the one before is written
        for batch in batches:
            valid = np.asarray(batch["valid"])
            for task, values in batch["labels"].items():
                labels.setdefault(task, []).append(np.asarray(values)[valid])
            items_seen.append(np.asarray(batch["item"])[valid])
            encoded = {encoder: encode(batch["video"]) for encoder, encode in encoders.items()}
            if waiting is not None:
                store(*waiting)
            waiting = (encoded, valid)
            seen += int(valid.sum())
            bar.update(seen)
        if waiting is not None:
            store(*waiting)
        seconds = bar.seconds
    if not filled:
        raise ValueError(f"the {name} set has no clips.")
    joined = {task: np.concatenate(parts).astype(np.int32) for task, parts in labels.items()}
    return {
        encoder: Features(
            {kind: array[:filled] for kind, array in kinds.items()}, joined, np.concatenate(items_seen), seconds
        )
        for encoder, kinds in arrays.items()
    }


def channel_statistics(features: np.ndarray) -> tuple[Float[np.ndarray, "E"], Float[np.ndarray, "E"]]:
    """Mean and standard deviation of each channel over all clips (and tokens); 1 in place of a deviation of 0."""
    count = features.size // features.shape[-1]
    axes = tuple(range(features.ndim - 1))
    zero = np.zeros(features.shape[-1])
    mean = sum((part.astype(np.float64).sum(axes) for part in chunks(features)), zero) / count
    variance = sum((np.square(part.astype(np.float64) - mean).sum(axes) for part in chunks(features)), zero) / count
    deviation = np.sqrt(variance)
    # A channel that varies by rounding errors only would be blown up to noise.
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
    return mean.astype(np.float32), np.where(constant, 1.0, deviation).astype(np.float32)


def chunks(array: np.ndarray, limit: int = 2**26) -> Iterable[np.ndarray]:
    """Views of consecutive rows, of about `limit` bytes each: a file on disk is never loaded as a whole."""
    rows = max(1, limit // max(array[:1].nbytes, 1))
    return (array[first : first + rows] for first in range(0, len(array), rows))


def _aligned_empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Uninitialised memory at an address that JAX's CPU device takes over without a copy (a multiple of 64)."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
