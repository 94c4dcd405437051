"""Implementations of self-attention: XLA operations, or a kernel that keeps logits and softmax on the chip."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.config import Attention
from jepa_jax.models import batch_sharding
from jepa_jax.models.attention.support import Shape, unsupported

if TYPE_CHECKING:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash  # slow to import, and only TPUs need it

LANES = 128  # a TPU's vector width: the number of tokens must be a multiple of it
LONGEST = 2048  # keys in a block
AREA = LANES * LONGEST  # most logits in a block: with it, forward and backward fit a v5e's scratch memory

Tokens = Float[Array, "B S heads G"]
Attend = Callable[[Tokens, Tokens, Tokens], Tokens]  # from queries, keys and values


def attend(q_BxSxAxG: Tokens, k_BxSxAxG: Tokens, v_BxSxAxG: Tokens, kind: Attention) -> Tokens:
    """Returns each token's average of the values, weighted by softmax(q·k / √G) (arXiv:1706.03762, equation 1).

    Args:
        q_BxSxAxG: queries of S tokens in A heads.
        k_BxSxAxG: keys.
        v_BxSxAxG: values.
        kind: see `config.Attention`. `auto` must be resolved before (see `choice`); here it is the same as xla.
    """
    if kind != "fused":
        return by_xla(q_BxSxAxG, k_BxSxAxG, v_BxSxAxG)
    return fused(q_BxSxAxG, k_BxSxAxG, v_BxSxAxG)


def by_xla(q_BxSxAxG: Tokens, k_BxSxAxG: Tokens, v_BxSxAxG: Tokens) -> Tokens:
    """`attend` by XLA operations, with logits and softmax in float32.

    Heads are moved beside the batch once, so that every matrix product reads contiguous matrices. On a CPU, where XLA
    copies its operands otherwise, a training step takes less time than with `jax.nn.dot_product_attention`.
    """
    batch, _, heads, width = q_BxSxAxG.shape

    def heads_first(x_BxSxAxG: Tokens) -> Float[Array, "BA S G"]:
        return x_BxSxAxG.swapaxes(1, 2).reshape(batch * heads, -1, width)

    q, k, v = heads_first(q_BxSxAxG), heads_first(k_BxSxAxG), heads_first(v_BxSxAxG)
    logits = jnp.einsum("hsg,htg->hst", q, k, preferred_element_type=jnp.float32) * width**-0.5
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("hst,htg->hsg", weights, v).reshape(batch, heads, -1, width).swapaxes(1, 2)


def fused(q_BxSxAxG: Tokens, k_BxSxAxG: Tokens, v_BxSxAxG: Tokens) -> Tokens:
    """`attend` by the kernel of the platform; by XLA operations where there is none for these inputs."""
    kernels: dict[str, Callable[..., jax.Array]] = {"tpu": splash_attention}
    shape = Shape(q_BxSxAxG.shape[1], q_BxSxAxG.shape[3])
    # Tracing cuDNN's kernel needs a GPU.
    if jax.default_backend() == "gpu" and not unsupported("gpu", q_BxSxAxG.dtype, shape):
        kernels["cuda"] = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    return jax.lax.platform_dependent(q_BxSxAxG, k_BxSxAxG, v_BxSxAxG, default=by_xla, **kernels)


def splash_attention(q_BxSxAxG: Tokens, k_BxSxAxG: Tokens, v_BxSxAxG: Tokens, *, interpret: bool = False) -> Tokens:
    """`attend` by JAX's TPU kernel of this name. `interpret` runs it on any device, slowly."""
    return batch_sharding.per_device(functools.partial(_splash, interpret=interpret))(q_BxSxAxG, k_BxSxAxG, v_BxSxAxG)


def _splash(q_BxSxAxG: Tokens, k_BxSxAxG: Tokens, v_BxSxAxG: Tokens, *, interpret: bool) -> Tokens:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    tokens, heads, width = q_BxSxAxG.shape[1:]
    padded = -(-tokens // LANES) * LANES

    def prepare(x_BxSxAxG: Tokens) -> Float[Array, "B heads padded G"]:
        return jnp.pad(x_BxSxAxG, ((0, 0), (0, padded - tokens), (0, 0), (0, 0))).swapaxes(1, 2)

    # Padding is a segment of its own, so no token attends to it.
    segment_S = (jnp.arange(padded) >= tokens).astype(jnp.int32)
    segments = splash.SegmentIds(segment_S, segment_S) if padded > tokens else None
    kernel: Any = splash.make_splash_mha(
        mask=splash.MultiHeadMask([splash.FullMask((padded, padded))] * heads),
        block_sizes=blocks(padded),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    values_BxAxSxG = jax.vmap(functools.partial(kernel, segment_ids=segments))(
        prepare(q_BxSxAxG * width**-0.5), prepare(k_BxSxAxG), prepare(v_BxSxAxG)
    )
    return values_BxAxSxG.swapaxes(1, 2)[:, :tokens]


def blocks(tokens: int) -> "splash.BlockSizes":
    """Returns the numbers of queries and keys in a block: multiples of `LANES` that divide `tokens`.

    Args:
        tokens: a multiple of `LANES`.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    keys = _largest_divisor(tokens, LONGEST)
    queries = _largest_divisor(tokens, AREA // keys)
    return splash.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        use_fused_bwd_kernel=True,
    )


def _largest_divisor(tokens: int, limit: int) -> int:
    return max(size for size in range(LANES, limit + 1, LANES) if tokens % size == 0)
