"""The Video-JEPA encoder: a Vision Transformer over the visible tubelets of a clip."""

import flax.linen as nn
import flax.linen.dtypes
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from jepa_jax.config import Attention, EncoderConfig, Remat
from jepa_jax.models import batch_sharding, layers, rope
from jepa_jax.models.sizes import Size, parse_size

modality_init = nn.initializers.normal(1e-6)


def level_ends(depth: int, levels: int, explicit: tuple[int, ...] = ()) -> list[int]:
    """Returns the number of the last block of each level: 3, 6, 9, 12 for depth 12 and 4 levels.

    Args:
        depth: number of blocks.
        levels: number of equal levels.
        explicit: the last block of each level, counted from 1; overrides `levels`.

    Raises:
        ValueError: there are more levels than blocks, or the last explicit end is not the depth.
    """
    if explicit:
        if explicit[-1] != depth:
            raise ValueError(
                f"level_ends is {explicit}; expected the last to be the encoder's depth, {depth}, so that every block "
                "is used"
            )
        return list(explicit)
    if not 1 <= levels <= depth:
        raise ValueError(f"levels is {levels}; expected between 1 and the encoder's depth, {depth}")
    return [depth * (level + 1) // levels for level in range(levels)]


def gather_tokens(tokens_BxNxE: Float[Array, "B N E"], index_BxS: Int[Array, "B S"]) -> Float[Array, "B S E"]:
    """Returns the tokens at the given positions of each clip."""
    return jnp.take_along_axis(tokens_BxNxE, index_BxS[..., None], axis=1)


def _nearest(number: int, divisor: int) -> int:
    """Returns the positive multiple of `divisor` that is nearest to `number`."""
    return max((2 * number + divisor) // (2 * divisor), 1) * divisor


class PatchEmbedding(nn.Module):
    """Linear embedding of flattened tubelets (frames × patch × patch × colors)."""

    width: int
    shape: tuple[int, int, int, int]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, patches_BxSxV: jax.Array) -> jax.Array:
        """Patches [B, S, τ·P·P·C] → tokens [B, S, E]."""
        kernel = self.param("kernel", layers.trunc_normal, (*self.shape, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x, kernel, bias = flax.linen.dtypes.promote_dtype(patches_BxSxV, kernel, bias, dtype=self.dtype)
        return batch_sharding.shard_batch(x @ kernel.reshape(-1, self.width) + bias)


class Encoder(nn.Module):
    """Encoder of normalized clips [B, F, Y, X, C]. Images (F = 1) have their own patch and modality embedding."""

    size: Size
    patch: int
    tubelet: int
    levels: int
    rotary: rope.Layout
    scan: bool
    remat: Remat
    attention: Attention
    dtype: DTypeLike
    level_ends: tuple[int, ...] = ()

    def setup(self) -> None:
        """Creates the submodules, in the order in which they run."""
        ends = level_ends(self.size.depth, self.levels, self.level_ends)
        size, patch = self.size, self.patch
        self.patch_embedding = PatchEmbedding(size.width, (self.tubelet, patch, patch, 3), self.dtype)
        self.image_patch_embedding = PatchEmbedding(size.width, (1, patch, patch, 3), self.dtype)
        self.video_modality = self.param("video_modality", modality_init, (1, 1, size.width))
        self.image_modality = self.param("image_modality", modality_init, (1, 1, size.width))
        self.groups = [
            layers.Blocks(size, first, end - first, self.scan, self.remat, self.attention, self.dtype)
            for first, end in zip([0, *ends], ends, strict=False)
        ]
        # Features are float32 whatever the dtype of the blocks, like the output of LayerNorm under PyTorch's autocast.
        self.norms = [nn.LayerNorm(layers.EPSILON, dtype=jnp.float32) for _ in ends]

    def grid(self, clips: Float[Array, "B F Y X C"] | jax.ShapeDtypeStruct) -> tuple[int, int, int]:
        """Returns the number of tokens of a clip in time, height and width.

        Raises:
            ValueError: clips that do not divide into tubelets.
        """
        frames, height, width = clips.shape[1:4]
        tubelet = 1 if frames == 1 else self.tubelet
        if frames % tubelet or height % self.patch or width % self.patch:
            raise ValueError(
                f"clips of {frames} frames, {height}×{width} pixels do not divide into tubelets of {tubelet} frames, "
                f"{self.patch}×{self.patch} pixels; the nearest that do have {_nearest(frames, tubelet)} frames, "
                f"{_nearest(height, self.patch)}×{_nearest(width, self.patch)} pixels"
            )
        return frames // tubelet, height // self.patch, width // self.patch

    def patches(self, clips: Float[Array, "B F Y X C"]) -> Float[Array, "B N V"]:
        """Splits clips into flattened tubelets, in time-major order."""
        time, height, width = self.grid(clips)
        tubelet = clips.shape[1] // time
        x = clips.reshape(clips.shape[0], time, tubelet, height, self.patch, width, self.patch, clips.shape[-1])
        return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(clips.shape[0], time * height * width, -1)

    def __call__(
        self,
        clips: Float[Array, "B F Y X C"],
        index_BxK: Int[Array, "B K"] | None = None,
        *,
        all_levels: bool = False,
    ) -> Float[Array, "B S width"]:
        """Returns the float32 features of the tokens at `index_BxK`. These tokens attend only to each other.

        Args:
            clips: normalized clips. The patch divides their sides, and the tubelet the number of frames, which may also
                be 1.
            index_BxK: positions in time-major order; None: all N tokens.
            all_levels: return all levels, concatenated ([B, K, D]), instead of the last ([B, K, E]).

        Raises:
            ValueError: clips that do not divide into tubelets.
        """
        image = clips.shape[1] == 1
        patches_BxSxV = self.patches(clips)
        index = jnp.arange(patches_BxSxV.shape[1])[None] if index_BxK is None else index_BxK
        if index_BxK is not None:
            # Pixels are gathered, not embeddings: they need no gradient, so the backward pass has no scatter.
            patches_BxSxV = gather_tokens(patches_BxSxV, index_BxK)
        if self.is_initializing():
            self.patch_embedding(jnp.zeros((1, 1, self.tubelet * self.patch**2 * 3)))
            self.image_patch_embedding(jnp.zeros((1, 1, self.patch**2 * 3)))
        x_BxSxE = (self.image_patch_embedding if image else self.patch_embedding)(patches_BxSxV)
        x_BxSxE += (self.image_modality if image else self.video_modality).astype(x_BxSxE.dtype)

        turns = rope.turns(index, self.grid(clips), self.size.head_width, self.patch, self.rotary)
        outputs = []
        for level, (group, norm) in enumerate(zip(self.groups, self.norms, strict=True)):
            x_BxSxE = group(x_BxSxE, turns)
            if all_levels or level == self.levels - 1 or self.is_initializing():
                outputs.append(norm(x_BxSxE))
        return jnp.concatenate(outputs, axis=-1) if all_levels else outputs[-1]


def build_encoder(config: EncoderConfig, dtype: DTypeLike = jnp.float32) -> Encoder:
    """Builds an encoder that computes in `dtype`; its parameters are float32."""
    return Encoder(
        size=parse_size(config.size),
        patch=config.patch,
        tubelet=config.tubelet,
        levels=config.levels,
        rotary=config.rotary,
        scan=config.scan,
        remat=config.remat,
        attention=config.attention,
        dtype=jnp.dtype(dtype),
        level_ends=config.level_ends,
    )
