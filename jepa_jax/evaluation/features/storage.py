"""How features are stored: the arrays of each kind, float16 or int8, and their conversion from and to float."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

STEPS = 254  # int8 codes between the smallest and largest value of a channel in a clip

StorageDtype = Literal["float16", "int8"]
Index = Int[np.ndarray, "B"] | slice


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """Shape and storage of one kind of features.

    Attributes:
        shape: of one row: (E,), (T, E) or (N, E).
        storage_dtype: float16, or int8 with a float32 range for each channel.
    """

    shape: tuple[int, ...]
    storage_dtype: StorageDtype

    @property
    def row_bytes(self) -> int:
        """Bytes of a row on disk."""
        return sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in self.arrays.values())

    @property
    def arrays(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Dtype and shape of a row in each array, by the array's name."""
        if self.storage_dtype == "float16":
            return {"features": (np.float16, self.shape)}
        return {"features": (np.int8, self.shape), "range": (np.float32, (2, self.shape[-1]))}


def encode_rows(rows: Float[Array, "B *S E"], storage_dtype: StorageDtype) -> dict[str, Shaped[Array, "B ..."]]:
    """Converts features to the arrays that are stored (see `FeatureSpec.arrays`). Traceable.

    int8 divides the range of each channel within each clip into 254 steps. Channels with large values therefore cost
    the others no precision, and no statistics of the set are needed. The error is at most 1/508 of the range.
    """
    if storage_dtype == "float16":
        return {"features": rows.astype(jnp.float16)}
    tokens_BxSxE = rows.astype(jnp.float32).reshape(rows.shape[0], -1, rows.shape[-1])
    low_Bx1xE, high_Bx1xE = tokens_BxSxE.min(1, keepdims=True), tokens_BxSxE.max(1, keepdims=True)
    middle_Bx1xE, step_Bx1xE = low_Bx1xE + (high_Bx1xE - low_Bx1xE) / 2, (high_Bx1xE - low_Bx1xE) / STEPS
    # A constant channel has step 0: it is stored as its middle.
    code = jnp.round((tokens_BxSxE - middle_Bx1xE) / jnp.where(step_Bx1xE > 0, step_Bx1xE, 1))
    return {
        "features": code.astype(jnp.int8).reshape(rows.shape),
        "range": jnp.concatenate([middle_Bx1xE, step_Bx1xE], axis=1),
    }


class Quantized:
    """int8 features that read as float16: `rows[index]` decodes the rows it returns."""

    def __init__(self, code: Shaped[np.ndarray, "n ..."], value_range: Float[np.ndarray, "n 2 E"]):
        """Takes the arrays `features` and `range` of `encode_rows`."""
        self._code, self._range = code, value_range
        self.shape = code.shape
        self.dtype = np.dtype(np.float16)
        self.nbytes = code.size * self.dtype.itemsize  # decoded

    def __len__(self) -> int:
        return len(self._code)

    def __getitem__(self, index: Index) -> Float[np.ndarray, "B *S E"]:
        middle_Bx1xE, step_Bx1xE = np.split(self._range[index], 2, axis=1)
        code = self._code[index]
        tokens_BxSxE = code.reshape(len(code), -1, code.shape[-1]) * step_Bx1xE + middle_Bx1xE
        return tokens_BxSxE.reshape(code.shape).astype(np.float16)
