"""Stacks of transformer blocks, with scan and rematerialization."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from jepa_jax.config import Attention, Remat
from jepa_jax.models import batch_sharding, rope
from jepa_jax.models.attention import attend
from jepa_jax.models.sizes import Size

EPSILON = 1e-6  # of every LayerNorm in encoder and predictor


def cut_normal(std: float) -> nn.initializers.Initializer:
    """Returns an initializer that draws from a normal distribution truncated at ±6 σ.

    The study truncates at ±2, which is 100 σ and has no effect. But jax.random.truncated_normal returns its lower bound
    about once in 2^23 draws. With the study's bounds this is a weight of −2, and a ViT-B has twelve of them. Bounds of
    6 σ leave all other draws unchanged, since JAX draws no float32 number beyond 5.2 σ.
    """
    return nn.initializers.truncated_normal(std, lower=-6.0, upper=6.0)


trunc_normal = cut_normal(0.02)


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, x Φ(x) (arXiv:1606.08415).

    By erf, as PyTorch computes it: `jax.nn.gelu` uses erfc, which takes XLA several times as long on a CPU.
    """
    return x * (0.5 * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype))))


class Block(nn.Module):
    """Pre-norm block: rotary self-attention, then an MLP with exact GELU.

    `layer` (1-based) only scales initial values: the matrices that write to the residual are divided by √(2·layer).
    """

    size: Size
    attention: Attention
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_BxSxE: jax.Array, turns: rope.Turns, layer: jax.Array) -> tuple[jax.Array, None]:
        """x [B, S, E] → x [B, S, E] (and None: what `nn.scan` collects)."""
        width, heads = self.size.width, self.size.heads

        def to_residual(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
            return trunc_normal(key, shape, dtype) / jnp.sqrt(2.0 * layer)

        def dense(
            features: int, name: str, x: jax.Array, init: nn.initializers.Initializer = trunc_normal
        ) -> jax.Array:
            return batch_sharding.shard_batch(nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)(x))

        y_BxSxE = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm_attention")(x_BxSxE)
        # Split, not indexed: the backward pass of indexing adds three arrays of zeros.
        q_BxSxAxG, k_BxSxAxG, v_BxSxAxG = (
            x.reshape(*y_BxSxE.shape[:-1], heads, width // heads)
            for x in jnp.split(dense(3 * width, "qkv", y_BxSxE), 3, axis=-1)
        )
        y_BxSxAxG = attend(rope.rotate(q_BxSxAxG, turns), rope.rotate(k_BxSxAxG, turns), v_BxSxAxG, self.attention)
        x_BxSxE += dense(width, "attention_out", y_BxSxAxG.reshape(x_BxSxE.shape), to_residual)

        y_BxSxE = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm_mlp")(x_BxSxE)
        y = gelu(dense(self.size.hidden, "mlp_in", y_BxSxE))
        x_BxSxE += dense(width, "mlp_out", y, to_residual)
        return x_BxSxE, None


class Blocks(nn.Module):
    """`length` blocks whose parameters are stacked along a first axis, from block `first` (0-based) on.

    Unrolled, the parameters keep that layout, so a checkpoint serves both.
    """

    size: Size
    first: int
    length: int
    scan: bool
    remat: Remat
    attention: Attention
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_BxSxE: Float[Array, "B S E"], turns: rope.Turns) -> Float[Array, "B S E"]:
        """x [B, S, E] → x [B, S, E]."""
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if self.remat == "dots" else None
        blocks = nn.scan(
            Block if self.remat == "none" else nn.remat(Block, policy=policy, prevent_cse=not self.scan),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
            length=self.length,
            unroll=1 if self.scan else self.length,
        )
        if self.remat == "level":
            blocks = nn.remat(blocks)
        layers = self.first + jnp.arange(1, self.length + 1, dtype=jnp.float32)
        return blocks(self.size, self.attention, self.dtype, name="block")(x_BxSxE, turns, layers)[0]
