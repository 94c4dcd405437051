"""Rows of features as probes read them: from memory, from disk or encoded again, in batches and ahead of use."""

import concurrent.futures
import mmap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jepa_jax.data.evaluation_clips import EvaluationSet
from jepa_jax.evaluation.features import extractor

Batch = tuple[Int[np.ndarray, "B"], Bool[np.ndarray, "B"]]


@runtime_checkable
class Rows(Protocol):
    """Features of n clips, [n, E], [n, T, E] or [n, N, E]: an array, or an object that decodes or encodes on reading.

    Arrays, memory maps, `storage.Quantized` and `UncachedRows` follow this protocol.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> np.dtype: ...  # noqa: D102
    @property
    def nbytes(self) -> int: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> np.ndarray: ...


class UncachedRows:
    """Features of one kind that are not on disk: clips are decoded and encoded again at every read, as float16.

    The values are those that a cache would hold.
    """

    def __init__(
        self,
        encode: extractor.FeatureExtractor,
        clips: EvaluationSet,
        kind: str,
        items: Int[np.ndarray, "n"],
        *,
        batch_size: int = 0,
        workers: int = 0,
    ):
        """Computes nothing yet.

        Args:
            encode: the encoder.
            clips: the set.
            kind: the kind of features.
            items: the set's decodable rows; row i here is row items[i] of the set.
            batch_size: clips encoded in one call; 0: what suits the device.
            workers: processes that decode.
        """
        self._clips, self._kind, self._items, self._workers = clips, kind, items, workers
        device = extractor.Device()
        self._batch_size = device.batch_size(batch_size, len(items), encode.tokens(clips.clip_shape))
        self._dispatch = device.bind(encode, ((kind, "float16"),))
        self.shape = (len(items), *encode.row_shapes(clips.clip_shape)[kind])
        self.dtype = np.dtype(np.float16)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Int[np.ndarray, "B"] | slice) -> Float[np.ndarray, "B *S E"]:
        numbers = np.arange(len(self))[index] if isinstance(index, slice) else index
        return next(self.batches([numbers])) if len(numbers) else np.empty((0, *self.shape[1:]), self.dtype)

    def batches(self, parts: Sequence[Int[np.ndarray, "_"]]) -> Iterator[Float[np.ndarray, "_ ..."]]:
        """Yields the rows of each index array. Make one call for a whole pass: each call starts the workers.

        Raises:
            OSError: a clip that could be decoded before no longer can.
        """
        buffered: list[np.ndarray] = []
        blocks = self._encoded(np.concatenate(list(parts)))
        for count in map(len, parts):
            while sum(map(len, buffered)) < count:
                buffered.append(next(blocks))
            joined = np.concatenate(buffered) if len(buffered) > 1 else buffered[0]
            yield joined[:count]
            buffered = [joined[count:]]

    def _encoded(self, index: Int[np.ndarray, "n"]) -> Iterator[Float[np.ndarray, "_ ..."]]:
        """Rows in this order, in blocks of the device's batch size."""
        done = 0
        batches = self._clips.batches(self._batch_size, self._workers, self._items[index])
        for batch, encoded in extractor.pipelined(batches, self._dispatch):
            count = min(self._batch_size, len(index) - done)
            if not batch["valid"][:count].all():
                lost = batch["row"][:count][~batch["valid"][:count]]
                raise OSError(
                    f"clips {', '.join(map(str, lost))} of the set could be decoded before and no longer can; "
                    "check the files and evaluate again."
                )
            done += count
            yield np.asarray(encoded[self._kind]["features"])[:count]


def read(source: Rows, parts: Iterable[Int[np.ndarray, "_"]]) -> Iterator[np.ndarray]:
    """Yields the rows of each index array; uncached features are encoded in one pass."""
    if isinstance(source, UncachedRows):
        return source.batches(list(parts))
    return (source[index_B] for index_B in parts)


def read_ahead(source: Rows, parts: Sequence[Int[np.ndarray, "_"]]) -> Iterator[np.ndarray]:
    """Yields the rows of each of `parts`, reading the next in a thread while the caller uses the current one."""
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        remaining = read(source, parts)
        pending = reader.submit(next, remaining, None)
        while (ready := pending.result()) is not None:
            _release_pages(source)
            pending = reader.submit(next, remaining, None)
            yield ready


def in_batches(rows_R: Int[np.ndarray, "R"], size: int) -> Iterator[Batch]:
    """Row numbers in batches of one size; the last batch repeats its last row, marked as not valid."""
    for first in range(0, len(rows_R), size):
        index_B = np.arange(first, first + size)
        yield rows_R[np.minimum(index_B, len(rows_R) - 1)], index_B < len(rows_R)


def chunks(source: Rows, limit: int = 2**26) -> Iterator[np.ndarray]:
    """Consecutive rows, about `limit` bytes each: a file on disk is never loaded as a whole."""
    count = max(1, limit * len(source) // max(source.nbytes, 1))
    index = np.arange(len(source))
    return read(source, [index[first : first + count] for first in range(0, len(source), count)])


def channel_statistics(source: Rows) -> tuple[Float[np.ndarray, "E"], Float[np.ndarray, "E"]]:
    """Mean and standard deviation of each channel over all clips and tokens; a deviation of 0 counts as 1.

    One pass, chunk by chunk (Chan, Golub & LeVeque 1983).
    """
    width = source.shape[-1]
    count, mean, squares = 0, np.zeros(width), np.zeros(width)
    for part in chunks(source):
        values = part.reshape(-1, width).astype(np.float64)
        size, centre = len(values), values.mean(0)
        squares += np.square(values - centre).sum(0) + np.square(centre - mean) * count * size / (count + size)
        mean += (centre - mean) * size / (count + size)
        count += size
    deviation = np.sqrt(squares / count)
    # Dividing by rounding errors would turn a constant channel into noise.
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
    return mean.astype(np.float32), np.where(constant, 1.0, deviation).astype(np.float32)


class Standardizer(NamedTuple):
    """Converts every channel to (x − mean) / deviation."""

    mean_E: Float[Array | np.ndarray, "E"]
    deviation_E: Float[Array | np.ndarray, "E"]

    def __call__(self, features: Num[Array | np.ndarray, "*S E"]) -> Float[Array | np.ndarray, "*S E"]:
        """Returns standardized features, float32."""
        return (features.astype(np.float32) - self.mean_E) / self.deviation_E


def _release_pages(source: Rows) -> None:
    """Releases the pages of a memory-mapped file that were read; the kernel counts them as the process's memory."""
    mapped = getattr(source, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
