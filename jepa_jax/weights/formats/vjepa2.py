"""V-JEPA 2 as its authors released it (arXiv:2506.09985): one level, no modality embedding, no path for images."""

from jepa_jax.models.sizes import Size
from jepa_jax.weights import entries
from jepa_jax.weights.entries import Module

MASK_TOKENS = 10
POSITIONS = "fixed positions of a version before rotary ones; not used"


def encoder(size: Size, patch: int, tubelet: int, prefix: str = "") -> Module:
    """Returns the entries of an encoder; `prefix` is that of every name in the file."""
    return Module(
        [
            *entries.patch_embedding(f"{prefix}patch_embed.proj", "patch_embedding", size.width, tubelet, patch),
            *entries.groups(entries.ORIGINAL, f"{prefix}blocks", size, [size.depth]),
            *entries.layer_norm(f"{prefix}norm", "norms_0", size.width),
        ],
        entries.images_as_still_videos() | entries.no_modalities(size.width),
        {f"{prefix}pos_embed": POSITIONS},
    )


def predictor(size: Size, encoder_width: int, mask_tokens: int = MASK_TOKENS, prefix: str = "") -> Module:
    """Returns the entries of a predictor; `prefix` is that of every name in the file."""
    width = size.width
    return Module(
        [
            *entries.linear(f"{prefix}predictor_embed", "embed", encoder_width, width),
            *entries.mask_tokens(f"{prefix}mask_tokens", width, mask_tokens),
            *entries.stack(entries.ORIGINAL, f"{prefix}predictor_blocks", size),
            *entries.layer_norm(f"{prefix}predictor_norm", "norm", width),
            *entries.linear(f"{prefix}predictor_proj", "head_target", width, encoder_width),
        ],
        entries.no_modalities(width) | entries.no_context_head(width, encoder_width),
        {f"{prefix}predictor_pos_embed": POSITIONS},
    )
