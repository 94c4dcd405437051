"""Probes: classifiers that are trained on the features of a frozen encoder.

The input is the tokens of each clip, [B, N, E]. One vector per clip, [B, E], counts as a single token.

`LinearProbe` and `AttentiveProbe` are initialized with PyTorch's defaults, like the study (arXiv:2605.17165).
`torch.nn.MultiheadAttention`: Xavier-uniform packed query, key and value, uniform ±1/√fan_in output matrix, zero
biases. `torch.nn.Linear`: uniform ±1/√fan_in for matrix and bias. `AttentiveBlocksProbe` is initialized like the probe
of V-JEPA 2 (arXiv:2506.09985).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.models.layers import cut_normal, gelu, trunc_normal

QUERY_STDDEV = 0.02
LAYER_NORM_EPSILON = 1e-5


class LinearProbe(nn.Module):
    """A linear classifier of one feature vector per clip."""

    classes: int

    @nn.compact
    def __call__(self, features_BxE: Float[Array, "B E"]) -> Float[Array, "B classes"]:
        """Returns the logits."""
        return _torch_linear(self.classes, features_BxE.shape[-1], "head")(features_BxE)


class AttentiveProbe(nn.Module):
    """A learned query attends to all tokens of a clip, and a linear layer classifies the result.

    The query q is prepended to the tokens x. With s = [q; x] and y = LayerNorm(s + MHA(s, s, s)), the logits are an
    affine map of the first row of y (arXiv:2605.17165). Only this row is computed, which gives the same logits at a
    cost that is linear in the number of tokens.
    """

    classes: int
    heads: int = 8

    @nn.compact
    def __call__(self, tokens: Float[Array, "B *S E"]) -> Float[Array, "B classes"]:
        """Returns the logits. They do not depend on the order of the tokens.

        Raises:
            ValueError: the number of heads does not divide the width.
        """
        tokens_BxSxE = _as_tokens(tokens, self.heads)
        batch, _, width = tokens_BxSxE.shape
        query_E = self.param("query", nn.initializers.normal(QUERY_STDDEV), (width,))
        # One matrix [in, out = 3·E], so that Xavier's fan_out equals that of PyTorch's packed projection.
        qkv_Ex3E = self.param("qkv_kernel", nn.initializers.xavier_uniform(), (width, 3 * width))
        qkv_3E = self.param("qkv_bias", nn.initializers.zeros, (3 * width,))

        query_Bx1xE = jnp.broadcast_to(query_E, (batch, 1, width))
        all_BxSxE = jnp.concatenate([query_Bx1xE, tokens_BxSxE], axis=1)
        q_Bx1xE = query_Bx1xE @ qkv_Ex3E[:, :width] + qkv_3E[:width]
        k_BxSxE, v_BxSxE = jnp.split(all_BxSxE @ qkv_Ex3E[:, width:] + qkv_3E[width:], 2, axis=-1)
        q_Bx1xAxG, k_BxSxAxG, v_BxSxAxG = (
            x.reshape(batch, -1, self.heads, width // self.heads) for x in (q_Bx1xE, k_BxSxE, v_BxSxE)
        )
        mixed_BxE = jax.nn.dot_product_attention(q_Bx1xAxG, k_BxSxAxG, v_BxSxAxG).reshape(batch, width)
        mixed_BxE = nn.Dense(width, kernel_init=_uniform_init(width), name="out")(mixed_BxE)
        y_BxE = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, name="norm")(query_E + mixed_BxE)
        return _torch_linear(self.classes, width, "head")(y_BxE)


class AttentiveBlocksProbe(nn.Module):
    """V-JEPA 2's probe: self-attention blocks on all tokens, then a learned query that attends to their output.

    There are `blocks` − 1 pre-norm blocks (self-attention, then an MLP of ratio 4 with exact GELU). Then
    q ← q + attention(q, LayerNorm(x)), without an output matrix, and q ← q + MLP(LayerNorm(q)). The logits are an
    affine map of q (arXiv:2506.09985).
    """

    classes: int
    heads: int = 16
    blocks: int = 4
    epsilon: float = LAYER_NORM_EPSILON  # of LayerNorm; transformers has 1e-6

    @nn.compact
    def __call__(self, tokens: Float[Array, "B *S E"]) -> Float[Array, "B classes"]:
        """Returns the logits. They do not depend on the order of the tokens.

        Raises:
            ValueError: the number of heads does not divide the width.
        """
        x_BxSxE = _as_tokens(tokens, self.heads)
        batch, _, width = x_BxSxE.shape
        # Recomputed in the backward pass. Otherwise a grid of probes on thousands of tokens would not fit in memory.
        block = nn.remat(_SelfAttentionBlock)
        for layer in range(1, self.blocks):
            x_BxSxE = block(self.heads, layer, self.epsilon, name=f"block_{layer}")(x_BxSxE)
        query_E = self.param("query", trunc_normal, (width,))
        q_Bx1xE = jnp.broadcast_to(query_E, (batch, 1, width))
        x_BxSxE = nn.LayerNorm(self.epsilon, name="norm_tokens")(x_BxSxE)
        key_value_BxSx2E = nn.Dense(2 * width, kernel_init=trunc_normal, name="key_value")(x_BxSxE)
        k_BxSxE, v_BxSxE = jnp.split(key_value_BxSx2E, 2, axis=-1)
        query_Bx1xE = nn.Dense(width, kernel_init=trunc_normal, name="to_query")(q_Bx1xE)
        q_Bx1xE += _attend(query_Bx1xE, k_BxSxE, v_BxSxE, self.heads)
        y_Bx1xE = nn.LayerNorm(self.epsilon, name="norm_mlp")(q_Bx1xE)
        q_Bx1xE += _Mlp(max(1, self.blocks - 1), name="mlp")(y_Bx1xE)
        return _torch_linear(self.classes, width, "head")(q_Bx1xE[:, 0])


class _SelfAttentionBlock(nn.Module):
    heads: int
    layer: int  # 1-based; initial weights of output matrices are divided by √(2·layer)
    epsilon: float

    @nn.compact
    def __call__(self, x_BxSxE: jax.Array) -> jax.Array:
        width = x_BxSxE.shape[-1]
        y_BxSxE = nn.LayerNorm(self.epsilon, name="norm_attention")(x_BxSxE)
        qkv_BxSx3E = nn.Dense(3 * width, kernel_init=trunc_normal, name="qkv")(y_BxSxE)
        q_BxSxE, k_BxSxE, v_BxSxE = jnp.split(qkv_BxSx3E, 3, axis=-1)
        mixed_BxSxE = _attend(q_BxSxE, k_BxSxE, v_BxSxE, self.heads)
        x_BxSxE += nn.Dense(width, kernel_init=_to_residual(self.layer), name="attention_out")(mixed_BxSxE)
        y_BxSxE = nn.LayerNorm(self.epsilon, name="norm_mlp")(x_BxSxE)
        return x_BxSxE + _Mlp(self.layer, name="mlp")(y_BxSxE)


class _Mlp(nn.Module):
    layer: int

    @nn.compact
    def __call__(self, x_BxSxE: jax.Array) -> jax.Array:
        width = x_BxSxE.shape[-1]
        y = gelu(nn.Dense(4 * width, kernel_init=trunc_normal, name="in")(x_BxSxE))
        return nn.Dense(width, kernel_init=_to_residual(self.layer), name="out")(y)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """Multi-head attention of projected queries, keys and values [B, S, E]."""
    q, k, v = (x.reshape(*x.shape[:2], heads, x.shape[-1] // heads) for x in (q, k, v))
    mixed = jax.nn.dot_product_attention(q, k, v)
    return mixed.reshape(*mixed.shape[:2], -1)


def _to_residual(layer: int) -> jax.nn.initializers.Initializer:
    return cut_normal(0.02 / (2 * layer) ** 0.5)


def _as_tokens(features: jax.Array, heads: int) -> jax.Array:
    """Returns features as tokens [B, N, E]; raises ValueError if the number of heads does not divide the width."""
    if features.shape[-1] % heads:
        raise ValueError(f"an attentive probe of {heads} heads cannot divide features of width {features.shape[-1]}.")
    return features if features.ndim == 3 else features[:, None]


def _torch_linear(features: int, fan_in: int, name: str) -> nn.Dense:
    init = _uniform_init(fan_in)
    return nn.Dense(features, kernel_init=init, bias_init=init, name=name)


def _uniform_init(fan_in: int) -> jax.nn.initializers.Initializer:
    """Returns the default initializer of torch.nn.Linear, uniform in ±1/√fan_in."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound, out_sharding=out_sharding)

    return init
