"""The small networks of objectives: Linears with GELU between, as nested dicts of arrays."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base


def init_mlp(key: jax.Array, widths: Sequence[int]) -> base.Params:
    """{fc1: {kernel, bias}, fc2: …} for these widths, input first, with PyTorch's default for a Linear.

    That is uniform in ±1/√fan_in, kernel and bias.
    """
    params = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, i))
        bound = inputs**-0.5
        params[f"fc{i + 1}"] = {
            "kernel": jax.random.uniform(kernel_key, (inputs, outputs), minval=-bound, maxval=bound),
            "bias": jax.random.uniform(bias_key, (outputs,), minval=-bound, maxval=bound),
        }
    return params


def mlp(params: base.Params, x: Float[Array, "*S inputs"]) -> Float[Array, "*S outputs"]:
    """The network's output, computed in the type of `x`; exact GELU."""
    for i in range(1, len(params) + 1):
        if i > 1:
            x = jax.nn.gelu(x, approximate=False)
        layer = params[f"fc{i}"]
        x = jnp.dot(x, layer["kernel"].astype(x.dtype)) + layer["bias"].astype(x.dtype)
    return x
