"""Comparison of an attention kernel with XLA's attention, forward and backward, on random inputs."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from jepa_jax.models.attention.kernels import Attend, Tokens, attend
from jepa_jax.models.attention.support import Shape

HEADS = 2
MOST_TOKENS = 4096  # memory grows with the square of the tokens; at this number XLA's logits take 128 MiB


def difference(kernel: Attend, dtype: DTypeLike, shape: Shape) -> float:
    """Returns the largest error of a token's values or gradients, relative to the root mean square over tokens.

    An error is the Euclidean norm of the difference from XLA's attention, over a token's heads and channels. NaN if the
    kernel's results contain NaN.

    Args:
        kernel: the attention to check.
        dtype: of queries, keys and values.
        shape: of one clip; at most MOST_TOKENS tokens are compared.
    """
    size = (1, min(shape.tokens, MOST_TOKENS), HEADS, shape.head_width)
    q, k, v = (jax.random.normal(key, size).astype(dtype) for key in jax.random.split(jax.random.key(0), 3))
    expected = _values_and_gradients(functools.partial(attend, kind="xla"), (q, k, v))
    actual = _values_and_gradients(kernel, (q, k, v))
    errors = [_error(own, other) for own, other in zip(actual, expected, strict=True)]
    return float(jnp.max(jnp.stack(errors)))


def tolerance(platform: str, dtype: DTypeLike) -> float:
    """Returns the largest `difference` that rounding explains: 8 ε of the type in which matrices are multiplied.

    TPUs multiply float32 matrices in bfloat16 by default. In bfloat16, splash attention and XLA's attention differ by
    1 to 3 ε.
    """
    product = jnp.bfloat16 if platform == "tpu" else dtype
    return 8 * float(jnp.finfo(product).eps)


def _values_and_gradients(function: Attend, qkv: tuple[Tokens, Tokens, Tokens]) -> tuple[Tokens, ...]:
    """The values, and the gradients of a loss in which every value has another weight."""

    def loss(qkv: tuple[Tokens, Tokens, Tokens]) -> tuple[Float[Array, ""], Tokens]:
        values = function(*qkv)
        weights = jnp.cos(jnp.arange(values.size, dtype=jnp.float32)).reshape(values.shape)
        return jnp.sum(weights * values.astype(jnp.float32)), values

    (_, values), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(qkv)
    return values, *gradients


def _error(actual: Tokens, expected: Tokens) -> Float[Array, ""]:
    actual, expected = actual.astype(jnp.float32), expected.astype(jnp.float32)
    error_BxS = jnp.linalg.norm(actual - expected, axis=(2, 3))
    size_BxS = jnp.linalg.norm(expected, axis=(2, 3))
    return error_BxS.max() / jnp.sqrt(jnp.square(size_BxS).mean())
