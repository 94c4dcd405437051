"""The predictor: from context features to the target encoder's features at the masked positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from jepa_jax.config import Attention, EncoderConfig, PredictorConfig, Remat
from jepa_jax.models import batch_sharding, layers, rope
from jepa_jax.models.encoder import modality_init
from jepa_jax.models.sizes import Size, parse_size


class Predictor(nn.Module):
    """A narrow transformer over context tokens and one mask token for each target position.

    With one level, as in V-JEPA 2, a linear layer embeds the context. With more, as in V-JEPA 2.1, it is Linear, GELU,
    Linear. `levels` counts those of the encoder's last levels that are embedded; the others are not used.
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
    mask_tokens: int = 2
    output: int = 0  # channels of the outputs; 0: those of the input
    rotary_scaled: bool | None = None  # None: the default of the layout

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
    ) -> tuple[Float[Array, "B M output"], Float[Array, "B K output"]]:
        """Returns predictions at the target positions and, from a separate head, at the context positions.

        Args:
            z_BxKxD: context features of all levels; or of the levels that are embedded.
            context_index_BxK: positions of the context in time-major order.
            target_index_BxM: positions to predict.
            grid: number of tokens in time, height and width.
            mask_token: index of the learned mask token to use at the target positions.
            image: whether clips are single frames, which have their own modality embedding.
        """
        context = z_BxKxD.shape[1]

        def dense(features: int, name: str, x: jax.Array) -> jax.Array:
            linear = nn.Dense(features, dtype=self.dtype, kernel_init=layers.trunc_normal, name=name)
            return batch_sharding.shard_batch(linear(x))

        x_BxKxE = z_BxKxD[..., -self.levels * self.encoder_width :]
        if self.levels > 1:
            x_BxKxE = layers.gelu(dense(self.encoder_width, "embed_levels", x_BxKxE))
        x_BxKxP = dense(self.size.width, "embed", x_BxKxE)
        tokens = self.param("mask_tokens", nn.initializers.zeros, (self.mask_tokens, 1, 1, self.size.width))
        mask_BxMxP = jnp.broadcast_to(tokens[mask_token], (*target_index_BxM.shape, self.size.width))
        # The study sorts tokens by position. Only rotations depend on positions, so the order does not matter.
        x_BxSxP = jnp.concatenate([x_BxKxP, mask_BxMxP.astype(x_BxKxP.dtype)], axis=1)
        index_BxS = jnp.concatenate([context_index_BxK, target_index_BxM], axis=1)

        modality = {
            name: self.param(name, modality_init, (1, 1, self.size.width))
            for name in ("video_modality", "image_modality")
        }
        x_BxSxP += modality["image_modality" if image else "video_modality"].astype(x_BxSxP.dtype)
        turns = rope.turns(index_BxS, grid, self.size.head_width, self.patch, self.rotary, self.rotary_scaled)
        blocks = layers.Blocks(
            self.size, 0, self.size.depth, self.scan, self.remat, self.attention, self.dtype, name="blocks"
        )
        x_BxSxP = nn.LayerNorm(layers.EPSILON, dtype=self.dtype, name="norm")(blocks(x_BxSxP, turns))
        output = self.output or z_BxKxD.shape[-1]
        target_BxMxD = dense(output, "head_target", x_BxSxP[:, context:])
        return target_BxMxD, dense(output, "head_context", x_BxSxP[:, :context])


def build_predictor(config: PredictorConfig, encoder: EncoderConfig, dtype: DTypeLike = jnp.float32) -> Predictor:
    """Builds a predictor for an encoder. It computes in `dtype`; its parameters are float32.

    Raises:
        ValueError: an invalid size, or more levels than the encoder has.
    """
    if config.levels > encoder.levels:
        raise ValueError(f"levels is {config.levels}; expected at most the {encoder.levels} of the encoder")
    return Predictor(
        size=parse_size(config.size),
        encoder_width=parse_size(encoder.size).width,
        levels=config.levels or encoder.levels,
        patch=encoder.patch,
        rotary=encoder.rotary,
        scan=encoder.scan,
        remat=encoder.remat,
        attention=encoder.attention,
        dtype=jnp.dtype(dtype),
        mask_tokens=config.mask_tokens,
        output=config.output,
        rotary_scaled=None if config.rotary_scale == "encoder" else config.rotary_scale == "on",
    )
