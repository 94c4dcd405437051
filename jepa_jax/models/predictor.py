"""The predictor: from context features to what the target encoder says at the masked positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from jepa_jax.config import Attention, EncoderConfig, PredictorConfig, Remat
from jepa_jax.models import batch_sharding, layers, rope
from jepa_jax.models.encoder import modality_init
from jepa_jax.models.sizes import Size, parse_size

MASK_TOKENS = 2  # as in the study, whose two masks both use token 0


class Predictor(nn.Module):
    """A narrow transformer over context tokens and one mask token for each target position.

    With one level (as V-JEPA 2 has) the context is embedded by one Linear; with more (V-JEPA 2.1) by Linear, GELU,
    Linear.
    """

    size: Size
    encoder_width: int
    levels: int
    patch: int
    rotary: rope.Layout
    scan: bool
    remat: Remat
    attention: Attention
    dtype: DTypeLike
    mask_tokens: int = MASK_TOKENS

    @nn.compact
    def __call__(
        self,
        z_BxKxD: Float[Array, "B K D"],
        context_index_BxK: Int[Array, "B K"],
        target_index_BxM: Int[Array, "B M"],
        *,
        grid: tuple[int, int, int],
        mask_token: int = 0,
        image: bool = False,
    ) -> tuple[Float[Array, "B M D"], Float[Array, "B K D"]]:
        """Predictions at the target positions and, by a head of their own, at the context positions.

        Args:
            z_BxKxD: context features, all levels.
            context_index_BxK: their positions in time-major order.
            target_index_BxM: positions to predict.
            grid: tokens in time, height, width.
            mask_token: which learned mask token stands at the target positions.
            image: the modality embedding of single frames.
        """
        context = z_BxKxD.shape[1]

        def dense(features: int, name: str, x: jax.Array) -> jax.Array:
            linear = nn.Dense(features, dtype=self.dtype, kernel_init=layers.trunc_normal, name=name)
            return batch_sharding.shard_batch(linear(x))

        x_BxKxE = z_BxKxD
        if self.levels > 1:
            x_BxKxE = jax.nn.gelu(dense(self.encoder_width, "embed_levels", z_BxKxD), approximate=False)
        x_BxKxP = dense(self.size.width, "embed", x_BxKxE)
        tokens = self.param("mask_tokens", nn.initializers.zeros, (self.mask_tokens, 1, 1, self.size.width))
        mask_BxMxP = jnp.broadcast_to(tokens[mask_token], (*target_index_BxM.shape, self.size.width))
        # The study sorts the two by position first. Positions enter by rotation alone, so the order changes nothing.
        x_BxSxP = jnp.concatenate([x_BxKxP, mask_BxMxP.astype(x_BxKxP.dtype)], axis=1)
        index_BxS = jnp.concatenate([context_index_BxK, target_index_BxM], axis=1)

        modality = {
            name: self.param(name, modality_init, (1, 1, self.size.width))
            for name in ("video_modality", "image_modality")
        }
        x_BxSxP += modality["image_modality" if image else "video_modality"].astype(x_BxSxP.dtype)
        turns = rope.turns(index_BxS, grid, self.size.head_width, self.patch, self.rotary)
        blocks = layers.Blocks(
            self.size, 0, self.size.depth, self.scan, self.remat, self.attention, self.dtype, name="blocks"
        )
        x_BxSxP = nn.LayerNorm(layers.EPSILON, dtype=self.dtype, name="norm")(blocks(x_BxSxP, turns))
        output = z_BxKxD.shape[-1]
        target_BxMxD = dense(output, "head_target", x_BxSxP[:, context:])
        return target_BxMxD, dense(output, "head_context", x_BxSxP[:, :context])


def build_predictor(
    config: PredictorConfig, encoder: EncoderConfig, dtype: DTypeLike = jnp.float32, mask_tokens: int = MASK_TOKENS
) -> Predictor:
    """The predictor that `config` describes for this encoder, computing in `dtype` (parameters stay float32)."""
    return Predictor(
        size=parse_size(config.size),
        encoder_width=parse_size(encoder.size).width,
        levels=encoder.levels,
        patch=encoder.patch,
        rotary=encoder.rotary,
        scan=encoder.scan,
        remat=encoder.remat,
        attention=encoder.attention,
        dtype=jnp.dtype(dtype),
        mask_tokens=mask_tokens,
    )
