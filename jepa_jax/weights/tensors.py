"""Tensors of a file, read one at a time."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(jnp.bfloat16)}
"""Types whose numbers all are float32 numbers too."""


class WeightsError(ValueError):
    """A file of weights that cannot be used, or weights that a file format cannot hold."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
        dtype: its name: one of `DTYPES`, or of another type.
        shape: of the tensor.
        read: returns the numbers, in that type. The array may be read-only and mapped from the file.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def of_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Returns arrays in memory as tensors."""
    return {name: Tensor(array.dtype.name, array.shape, lambda x=array: x) for name, array in arrays.items()}
