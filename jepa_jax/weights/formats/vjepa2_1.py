"""V-JEPA 2.1 as its authors released it: several levels, each with a norm; embeddings of images and of both modalities.

The predictor of a distilled encoder embeds its last level with a Linear and predicts the features of the larger encoder
it was distilled from. Others embed all levels with Linear, GELU, Linear.
"""

from collections.abc import Sequence

from jepa_jax.models.sizes import Size
from jepa_jax.weights import entries
from jepa_jax.weights.entries import Module

MASK_TOKENS = 8
LEVEL_ENDS = {12: (3, 6, 9, 12), 24: (6, 12, 18, 24), 40: (10, 20, 30, 40), 48: (12, 24, 38, 48)}  # by depth


def encoder(size: Size, patch: int, tubelet: int, ends: Sequence[int], prefix: str = "") -> Module:
    """Returns the entries of an encoder.

    Args:
        size: of the encoder.
        patch: side of a patch.
        tubelet: frames of a tubelet.
        ends: the last block of each level, counted from 1.
        prefix: of every name in the file.
    """
    width = size.width
    norms = [entries.layer_norm(f"{prefix}norms_block.{i}", f"norms_{i}", width) for i in range(len(ends))]
    return Module(
        [
            *entries.patch_embedding(f"{prefix}patch_embed.proj", "patch_embedding", width, tubelet, patch),
            *entries.patch_embedding(f"{prefix}patch_embed_img.proj", "image_patch_embedding", width, 1, patch),
            entries.embedding(f"{prefix}video_mod_embed", "video_modality", width),
            entries.embedding(f"{prefix}img_mod_embed", "image_modality", width),
            *entries.groups(entries.ORIGINAL, f"{prefix}blocks", size, ends),
            *(entry for norm in norms for entry in norm),
        ],
        {},
        {},
    )


def predictor(
    size: Size, encoder_width: int, levels: int, outputs: int, mask_tokens: int = MASK_TOKENS, prefix: str = ""
) -> Module:
    """Returns the entries of a predictor.

    Args:
        size: of the predictor.
        encoder_width: of the encoder.
        levels: number of the encoder's levels that it embeds.
        outputs: channels of its predictions.
        mask_tokens: number of mask tokens.
        prefix: of every name in the file.
    """
    width = size.width
    if levels == 1:
        embed = [*entries.linear(f"{prefix}predictor_embed", "embed", encoder_width, width)]
    else:
        embed = [
            *entries.linear(f"{prefix}predictor_embed.0", "embed_levels", levels * encoder_width, encoder_width),
            *entries.linear(f"{prefix}predictor_embed.2", "embed", encoder_width, width),
        ]
    return Module(
        [
            *embed,
            *entries.mask_tokens(f"{prefix}mask_tokens", width, mask_tokens),
            entries.embedding(f"{prefix}video_mod_embed", "video_modality", width),
            entries.embedding(f"{prefix}img_mod_embed", "image_modality", width),
            *entries.stack(entries.ORIGINAL, f"{prefix}predictor_blocks", size),
            *entries.layer_norm(f"{prefix}predictor_norm", "norm", width),
            *entries.linear(f"{prefix}predictor_proj", "head_target", width, outputs),
            *entries.linear(f"{prefix}predictor_proj_context", "head_context", width, outputs),
        ],
        {},
        {},
    )
