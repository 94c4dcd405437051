"""State dicts of files that `torch.save` wrote, without PyTorch and without running what is pickled in them.

A pickle is a program that can call any function it names. The unpickler here knows only those that tensors need and
refuses all other names. Numbers are memory-mapped when they are used.
"""

import collections
import functools
import io
import math
import os
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jepa_jax.weights import torch_zip
from jepa_jax.weights.tensors import DTYPES, Tensor, WeightsError

PICKLE_BYTES = 2**26  # that of a checkpoint with its optimizer has about 1 MB
STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": DTYPES["float16"],
    "BFloat16Storage": DTYPES["bfloat16"],
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class StorageType(NamedTuple):
    """A class of torch storages."""

    dtype: np.dtype


class Storage(NamedTuple):
    """A flat array in the archive: data/KEY."""

    dtype: np.dtype
    key: str
    elements: int


class StoredTensor(NamedTuple):
    """A view of a storage. A tuple, since a pickle may try to change what it has made."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchFile:
    """A dict that `torch.save` wrote, with tensors that are read when they are used.

    Attributes:
        path: of the file.
        content: the dict; its tensors are instances of `StoredTensor`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads everything but the tensors.

        Raises:
            WeightsError: not a file that `torch.save` wrote, or a pickle that asks for more than tensors.
        """
        self.path = path
        self._members = torch_zip.members(path)
        self.content = _unpickle(path, self._members["data.pkl"])
        if not isinstance(self.content, Mapping):
            raise WeightsError(f"{path} holds a {type(self.content).__name__}; expected a dict of state dicts.")

    def state_dict(self, *keys: str | int) -> dict[str, Tensor]:
        """Returns the state dict at content[key][key]….

        Raises:
            WeightsError: no state dict there, or tensors that their storages cannot hold.
        """
        where = "".join(f"[{key!r}]" for key in keys)
        found: Any = self.content
        for key in keys:
            inside: Any = (
                found if isinstance(found, Mapping) else dict(enumerate(found if isinstance(found, list) else ()))
            )
            if key not in inside:
                raise WeightsError(f"{self.path} has no {where}; it has {', '.join(map(str, self.content))}.")
            found = inside[key]
        if not isinstance(found, Mapping):
            raise WeightsError(f"{self.path}: {where} is a {type(found).__name__}; expected a state dict.")
        tensors = {}
        for name, value in found.items():
            if not isinstance(name, str) or not isinstance(value, StoredTensor):
                raise WeightsError(f"{self.path}: {where}[{name!r}] is a {type(value).__name__}; expected a tensor.")
            tensors[name] = self._tensor(f"{where}[{name!r}]", value)
        # Expanded tensors and shared storages would make few bytes in the file many in memory.
        needed = sum(tensor.elements * found[name].storage.dtype.itemsize for name, tensor in tensors.items())
        if needed > os.path.getsize(self.path):
            raise WeightsError(
                f"{self.path}: the tensors of {where} have {needed:,} bytes, more than the file, "
                f"{os.path.getsize(self.path):,}."
            )
        return tensors

    def _tensor(self, where: str, tensor: StoredTensor) -> Tensor:
        storage, elements = tensor.storage, math.prod(tensor.shape)
        member = self._members.get(f"data/{storage.key}")
        if member is None:
            raise WeightsError(f"{self.path}: {where} is in data/{storage.key}, which is missing.")
        last = tensor.offset + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        )
        if storage.elements * storage.dtype.itemsize != member.size or (
            elements and (last >= storage.elements or elements > storage.elements)
        ):
            raise WeightsError(
                f"{self.path}: {where} has the shape {list(tensor.shape)}, {elements:,} elements of {storage.dtype} "
                f"from number {tensor.offset:,} on, but data/{storage.key} has {member.size:,} bytes."
            )
        read = functools.partial(_read, os.fspath(self.path), member.offset, tensor)
        return Tensor(storage.dtype.name, tensor.shape, read)


def _read(path: str, start: int, tensor: StoredTensor) -> np.ndarray:
    """Maps a tensor. Its pages leave memory with the array."""
    dtype, offset = tensor.storage.dtype, tensor.offset
    if not math.prod(tensor.shape):
        return np.empty(tensor.shape, dtype)
    count = tensor.storage.elements - offset
    flat = np.memmap(path, dtype, mode="r", offset=start + offset * dtype.itemsize, shape=(count,))
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)


def _unpickle(path: str | os.PathLike[str], member: torch_zip.Member) -> Any:
    if member.size > PICKLE_BYTES:
        raise WeightsError(f"{path} has a data.pkl of {member.size:,} bytes; expected at most {PICKLE_BYTES:,}.")
    pickled = torch_zip.read(path, member)
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            # The unpickler would reserve memory up to this number.
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(pickled):
                raise pickle.UnpicklingError(f"it stores an object as number {argument:,}")
        return _Unpickler(path, pickled).load()
    except WeightsError:
        raise
    except Exception as error:  # what a damaged pickle raises is not limited to certain classes
        raise WeightsError(f"{path} has a damaged data.pkl: {type(error).__name__}: {error}.") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: str | os.PathLike[str], pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self._path = path
        self._known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): self._rebuild_parameter,
            **{("torch", name): StorageType(dtype) for name, dtype in STORAGES.items()},
        }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self._known[module_name, global_name]
        except KeyError:
            raise WeightsError(
                f"{self._path} asks for {module_name}.{global_name}, which tensors do not need. It may be a harmful "
                "file: load it with no program that would call this."
            ) from None

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", StorageType(dtype), str(key), str(), int(elements)) if elements >= 0:
                return Storage(dtype, key, elements)
        raise WeightsError(f"{self._path} refers to {pid!r:.80}; expected a storage.")

    def _rebuild_tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
        numbers = (offset, *shape, *strides)
        if (
            not isinstance(storage, Storage)
            or not all(isinstance(number, int) and number >= 0 for number in numbers)
            or len(shape) != len(strides)
        ):
            raise WeightsError(
                f"{self._path} has a tensor of shape {shape!r:.80}, strides {strides!r:.80} and offset {offset!r:.80}; "
                "expected numbers that are not negative."
            )
        return StoredTensor(storage, offset, tuple(shape), tuple(strides))

    def _rebuild_parameter(self, tensor: Any, *_: Any) -> Any:
        return tensor
