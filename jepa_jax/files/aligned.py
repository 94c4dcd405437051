"""Memory that JAX's CPU backend can use without a copy."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

ALIGNMENT = 64


def aligned_empty(shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """An uninitialized array at an address that is a multiple of 64."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
