"""Features that no disk holds: encoded anew whenever they are read."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from jepa_jax.data.evaluation import EvaluationSet
from jepa_jax.probing import encoding


class Reencoded:
    """Features of one kind of a set's decodable clips, as float16; the same values as from a cache."""

    def __init__(
        self,
        encode: encoding.Encode,
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
            kind: which of the features.
            items: the set's rows that can be decoded; row i here is items[i] there.
            batch_size: clips encoded at once; 0: what suits the device.
            workers: processes that decode.
        """
        self._clips, self._kind, self._items, self._workers = clips, kind, items, workers
        device = encoding.Device()
        self._batch_size = device.batch_size(batch_size, len(items), encode.tokens(clips.clip_shape))
        self._dispatch = device.hold(encode, ((kind, "float16"),))
        self.shape = (len(items), *encode.row_shapes(clips.clip_shape)[kind])
        self.dtype = np.dtype(np.float16)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Int[np.ndarray, "B"] | slice) -> Float[np.ndarray, "B *S E"]:
        numbers = np.arange(len(self))[index] if isinstance(index, slice) else index
        return next(self.batches([numbers])) if len(numbers) else np.empty((0, *self.shape[1:]), self.dtype)

    def batches(self, index: Sequence[Int[np.ndarray, "_"]]) -> Iterator[Float[np.ndarray, "_ ..."]]:
        """The rows of each index array, decoded and encoded ahead; one call a pass, as workers start with it.

        Raises:
            OSError: a clip that could be decoded before no longer can.
        """
        held: list[np.ndarray] = []
        blocks = self._encoded(np.concatenate(list(index)))
        for wanted in map(len, index):
            while sum(map(len, held)) < wanted:
                held.append(next(blocks))
            joined = np.concatenate(held) if len(held) > 1 else held[0]
            yield joined[:wanted]
            held = [joined[wanted:]]

    def _encoded(self, index: Int[np.ndarray, "n"]) -> Iterator[Float[np.ndarray, "_ ..."]]:
        """Rows in this order, however many at once."""
        done = 0
        batches = self._clips.batches(self._batch_size, self._workers, self._items[index])
        for batch, made in encoding.one_behind(batches, self._dispatch):
            rows = min(self._batch_size, len(index) - done)
            if not batch["valid"][:rows].all():
                lost = batch["row"][:rows][~batch["valid"][:rows]]
                raise OSError(f"clips {', '.join(map(str, lost))} of the set could be decoded before, and cannot now.")
            done += rows
            yield np.asarray(made[self._kind]["features"])[:rows]
