"""Layer-wise learning rates and frozen blocks.

Source: BEiT (arXiv:2106.08254) and MAE (arXiv:2111.06377), after ELECTRA (arXiv:2003.10555).
"""

import re
from typing import Any

import jax
import numpy as np
import optax

from jepa_jax.models import Encoder, level_ends

HEAD = "head"


def multipliers(params: Any, encoder: Encoder, decay: float, frozen: int) -> Any:
    """Returns the factor of each parameter's learning rate: decay^(L + 1 − l) for layer l of an encoder of L blocks.

    The embeddings are layer 0, the blocks are layers 1 to L, and the final LayerNorm and the head are layer L + 1.

    Args:
        params: `encoder` and `head`, arrays or shapes.
        encoder: the module.
        decay: above 0, at most 1.
        frozen: layers 0 to this number have the factor 0, if it is not 0.

    Returns:
        float32 numbers, and arrays [blocks, 1, …] for stacked blocks.
    """
    depth = encoder.size.depth
    ends = level_ends(depth, encoder.levels, encoder.level_ends)

    def factor(layer_L: np.ndarray) -> np.ndarray:
        factor_L = decay ** (depth + 1.0 - layer_L)
        return np.where((layer_L <= frozen) & (frozen > 0), 0.0, factor_L).astype(np.float32)

    def of_param(path: Any, param: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if match := re.match(r"encoder/groups_(\d+)/", name):
            group = int(match[1])
            layer_L = np.arange([0, *ends][group], ends[group]) + 1
            return factor(layer_L).reshape(-1, *[1] * (param.ndim - 1))
        return factor(np.asarray(depth + 1 if name.startswith((f"{HEAD}/", "encoder/norms_")) else 0))

    return jax.tree_util.tree_map_with_path(of_param, params)


def scaled(inner: optax.GradientTransformation, factors: Any) -> optax.GradientTransformation:
    """Multiplies the updates of an optimizer, weight decay included. The gradient of frozen parameters counts as 0."""

    def mask(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        del params
        return jax.tree.map(lambda x, f: x * (f > 0), updates, factors)

    def scale(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        del params
        return jax.tree.map(lambda x, f: x * f, updates, factors)

    return optax.chain(optax.stateless(mask), inner, optax.stateless(scale))
