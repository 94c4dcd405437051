"""Heads of objectives: MLPs with GELU activations. Parameters are nested dicts of arrays."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base


def init_mlp(key: jax.Array, widths: Sequence[int]) -> base.Params:
    """Returns the parameters {fc1: {kernel, bias}, fc2: …} of an MLP with these widths, input first.

    Kernels and biases are uniform in ±1/√fan_in, the default of PyTorch's Linear.
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


def mlp(params: base.Params, *x: Float[Array, "*S part"]) -> Float[Array, "*S outputs"]:
    """Returns the network's output, computed in the dtype of `x`, with the exact GELU.

    Several inputs are treated as their concatenation; the gradient with respect to one costs only its part.
    """
    first, *others = (params[f"fc{i + 1}"] for i in range(len(params)))
    kernels = jnp.split(first["kernel"], list(itertools.accumulate(part.shape[-1] for part in x))[:-1])
    y = first["bias"].astype(x[0].dtype)
    for part, kernel in zip(x, kernels, strict=True):
        y += jnp.dot(part, kernel.astype(part.dtype))
    for layer in others:
        y = jax.nn.gelu(y, approximate=False)
        y = jnp.dot(y, layer["kernel"].astype(y.dtype)) + layer["bias"].astype(y.dtype)
    return y
