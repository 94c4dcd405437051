"""The arrays of a training state by name: what a checkpoint stores, and how two models differ."""

from collections.abc import Mapping
from typing import Any

import jax

Leaves = dict[str, dict[str, Any]]  # {"dtype": "float32", "shape": [3, 4]} by name


def by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree, in its order, by path: "params/encoder/norm/scale", "opt_state/0/count".

    Independent of the classes the tree is made of (dataclasses, optax's named tuples), which so may change.
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
    if len(named) < len(pairs):
        raise ValueError("Two leaves of the state have the same path; keys must not contain '/'.")
    return named


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts, for orbax."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *groups, last = name.split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = leaf
    return tree


def describe(named: Mapping[str, Any]) -> Leaves:
    """Dtype and shape of each, for JSON."""
    return {name: {"dtype": str(leaf.dtype), "shape": list(leaf.shape)} for name, leaf in named.items()}


def differences(found: Leaves, expected: Leaves) -> list[str]:
    """A line for each leaf that a checkpoint has otherwise than expected."""

    def say(leaf: Mapping[str, Any] | None) -> str:
        return f"{leaf['dtype']} {leaf['shape']}" if leaf else "absent"

    names = [*expected, *(name for name in found if name not in expected)]
    return [
        f"{name}: {say(found.get(name))} in the checkpoint, {say(expected.get(name))} expected"
        for name in names
        if found.get(name) != expected.get(name)
    ]
