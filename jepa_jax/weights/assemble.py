"""Parameters from the tensors of a file, and tensors from parameters."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jepa_jax.files.aligned import aligned_empty
from jepa_jax.weights import ledger
from jepa_jax.weights.entries import Entry, Module
from jepa_jax.weights.tensors import Tensor

Params = dict[str, Any]
"""Parameters of a module: nested dicts of float32 arrays."""


class Part(NamedTuple):
    """Tensors and the modules they are for, by name; `label` is put in front of the tensors' names in errors."""

    label: str
    tensors: Mapping[str, Tensor]
    modules: Mapping[str, Module]


class Found(NamedTuple):
    """The parameters of modules, by name; what was ignored in the file and filled in the parameters, and why."""

    params: Mapping[str, Params]
    ignored: Mapping[str, str]
    filled: Mapping[str, str]


def read(source: str, what: str, parts: Sequence[Part]) -> Found:
    """Returns the parameters of all modules of a file.

    Args:
        source: the file, for errors.
        what: the file should hold, for errors.
        parts: of the file.

    Raises:
        WeightsError: tensors that are missing, unexpected or misshapen; lists those of all parts.
    """
    problems, ignored = [], {}
    for part in parts:
        account = ledger.balance(part.tensors, list(part.modules.values()))
        problems += [f"{part.label}{problem}" for problem in account.problems]
        ignored |= {f"{part.label}{key}": reason for key, reason in account.ignored.items()}
    ledger.require(problems, source, what)
    found = {name: params(module, part.tensors) for part in parts for name, module in part.modules.items()}
    filled = {
        f"{name}/{path}": fill.why
        for part in parts
        for name, module in part.modules.items()
        for path, fill in module.fills.items()
    }
    return Found(found, ignored, filled)


def params(module: Module, tensors: Mapping[str, Tensor]) -> Params:
    """Returns the parameters of a module as float32.

    Tensors are read one after another into the parameters' memory, so that little more than that is needed.

    Args:
        module: of a file format.
        tensors: of the file; `ledger.balance` has checked that they fit.
    """
    rows: dict[str, int | None] = {}
    for entry in module.entries:
        rows[entry.path] = None if entry.row is None else max(rows.get(entry.path) or 0, entry.row + 1)
    leaves: dict[str, np.ndarray] = {}
    for entry in module.entries:
        if entry.path not in leaves:
            count = rows[entry.path]
            inner = _inner(entry)
            leaves[entry.path] = aligned_empty(inner if count is None else (count, *inner), np.float32)
        slot = _slot(leaves[entry.path], entry)
        slot[...] = tensors[entry.key].read().transpose(_order(entry)).reshape(slot.shape)
    for path, fill in module.fills.items():
        leaves[path] = fill.make(leaves)
    return _nested(leaves)


def tensors(module: Module, parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inverts `params`: returns the tensors of a file. Parameters that the format does not have are left out."""
    found = {}
    for entry in module.entries:
        leaf: Any = parameters
        for name in entry.path.split("/"):
            leaf = leaf[name]
        order = _order(entry)
        moved = _slot(np.asarray(leaf), entry).reshape([entry.shape[axis] for axis in order])
        found[entry.key] = np.ascontiguousarray(moved.transpose(np.argsort(order)))
    return found


def _inner(entry: Entry) -> tuple[int, ...]:
    """Returns the shape of a row of the parameter."""
    shape = [entry.shape[axis] for axis in entry.axes]
    return (*shape[:-1], shape[-1] * entry.part[1])


def _slot(leaf: np.ndarray, entry: Entry) -> np.ndarray:
    """Returns the part of the parameter that an entry fills."""
    row = leaf if entry.row is None else leaf[entry.row]
    number, parts = entry.part
    width = row.shape[-1] // parts
    return row[..., number * width : (number + 1) * width]


def _order(entry: Entry) -> list[int]:
    """Returns all axes of the tensor in the parameter's order, those that are left out first."""
    left_out = [axis for axis in range(len(entry.shape)) if axis not in entry.axes]
    assert math.prod(entry.shape[axis] for axis in left_out) == 1
    return [*left_out, *entry.axes]


def _nested(leaves: Mapping[str, np.ndarray]) -> Params:
    tree: Params = {}
    for path, leaf in leaves.items():
        *names, last = path.split("/")
        inner = tree
        for name in names:
            inner = inner.setdefault(name, {})
        inner[last] = leaf
    return tree
