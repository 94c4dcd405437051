"""Arrays of a pytree by path: their descriptions, fingerprints and differences."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Leaves = dict[str, dict[str, Any]]  # {"dtype": "float32", "shape": [3, 4]} by name


def by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree in order, by path: "params/encoder/norm/scale", "opt_state/0/count".

    Paths do not depend on the classes of the nodes (dataclasses, named tuples), so these may change.
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
    if len(named) < len(pairs):
        raise ValueError("Two leaves of the state have the same path; keys must not contain '/'.")
    return named


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    """Converts leaves by path to nested dicts, for Orbax."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *groups, last = name.split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = leaf
    return tree


def describe(named: Mapping[str, Any]) -> Leaves:
    """Dtype and shape of each array, for JSON."""
    return {name: {"dtype": str(leaf.dtype), "shape": list(leaf.shape)} for name, leaf in named.items()}


def fingerprint(tree: Any) -> str:
    """SHA-256 of all arrays: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, leaf in sorted(by_name(tree).items()):
        values = np.ascontiguousarray(leaf)
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()


def differences(found: Leaves, expected: Leaves) -> list[str]:
    """A line for each array that differs from the expected one."""

    def text(leaf: Mapping[str, Any] | None) -> str:
        return f"{leaf['dtype']} {leaf['shape']}" if leaf else "absent"

    names = [*expected, *(name for name in found if name not in expected)]
    return [
        f"{name}: {text(found.get(name))} in the checkpoint, {text(expected.get(name))} expected"
        for name in names
        if found.get(name) != expected.get(name)
    ]
