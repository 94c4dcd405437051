"""Tensors of a safetensors file."""

import functools
import os

import numpy as np
import safetensors

from jepa_jax.weights.tensors import Tensor, WeightsError

NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Returns the tensors of a file by name; their numbers are read when they are used.

    Raises:
        WeightsError: a truncated, damaged or other file.
    """
    name = os.fspath(path)
    try:
        with safetensors.safe_open(name, framework="numpy") as file:
            return {key: _tensor(name, key, file.get_slice(key)) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{name} is not a complete safetensors file: {error}. Download it again.") from error


def _tensor(path: str, key: str, found) -> Tensor:
    return Tensor(
        NAMES.get(found.get_dtype(), str(found.get_dtype())),
        tuple(found.get_shape()),
        functools.partial(_read, path, key),
    )


def _read(path: str, key: str) -> np.ndarray:
    # Opened for each tensor: pages of the file that were read stay in memory as long as it is open.
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.get_tensor(key)
