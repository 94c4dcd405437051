"""Heads of the frozen evaluation: what is trained on features that no longer change.

Initial values are PyTorch's defaults for the layers of the study (arXiv:2605.17165). `torch.nn.MultiheadAttention`:
Xavier-uniform packed query, key and value, uniform ±1/√fan_in output matrix, zero biases; `torch.nn.Linear`: uniform
±1/√fan_in for matrix and bias.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

QUERY_STDDEV = 0.02
LAYER_NORM_EPSILON = 1e-5


class LinearProbe(nn.Module):
    """Logits as one affine map of one feature vector a clip."""

    classes: int

    @nn.compact
    def __call__(self, features_BxE: Float[Array, "B E"]) -> Float[Array, "B classes"]:
        """Features of one vector a clip → logits."""
        return _torch_linear(self.classes, features_BxE.shape[-1], "head")(features_BxE)


class AttentiveProbe(nn.Module):
    """A learned query looks at all tokens of a clip through one attention layer, and is classified.

    The query q stands in front of the tokens x; with y = LayerNorm(s + MHA(s, s, s)), s = [q; x], the logits are an
    affine map of y's first row (arXiv:2605.17165). The other rows are never read, so only the query's is computed: the
    same numbers at a cost linear in the number of tokens.
    """

    classes: int
    heads: int = 8

    @nn.compact
    def __call__(self, tokens_BxSxE: Float[Array, "B S E"]) -> Float[Array, "B classes"]:
        """Any number of tokens a clip, in any order → logits.

        Raises:
            ValueError: heads that do not divide the width.
        """
        batch, _, width = tokens_BxSxE.shape
        if width % self.heads:
            raise ValueError(f"an attentive probe of {self.heads} heads cannot divide features of width {width}.")
        query_E = self.param("query", nn.initializers.normal(QUERY_STDDEV), (width,))
        # One matrix [in, out = 3·E], so that Xavier's fan_out is that of PyTorch's packed projection.
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


def _torch_linear(features: int, fan_in: int, name: str) -> nn.Dense:
    init = _uniform_init(fan_in)
    return nn.Dense(features, kernel_init=init, bias_init=init, name=name)


def _uniform_init(fan_in: int) -> jax.nn.initializers.Initializer:
    """Uniform in ±1/√fan_in: the default of torch.nn.Linear."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound, out_sharding=out_sharding)

    return init
