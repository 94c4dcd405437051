"""V-JEPA 2 in Hugging Face transformers (VJEPA2Model): separate matrices for queries, keys and values."""

from jepa_jax.models.sizes import Size
from jepa_jax.weights import entries
from jepa_jax.weights.entries import BlockNames, Entry, Module

NAMES = BlockNames(
    "norm1", ("attention.query", "attention.key", "attention.value"), "attention.proj", "norm2", "mlp.fc1", "mlp.fc2"
)


def encoder(size: Size, patch: int, tubelet: int, prefix: str = "encoder.") -> Module:
    """Returns the entries of an encoder; `prefix` is that of every name in the file."""
    embedding = f"{prefix}embeddings.patch_embeddings.proj"
    return Module(
        [
            *entries.patch_embedding(embedding, "patch_embedding", size.width, tubelet, patch),
            *entries.groups(NAMES, f"{prefix}layer", size, [size.depth]),
            *entries.layer_norm(f"{prefix}layernorm", "norms_0", size.width),
        ],
        entries.images_as_still_videos() | entries.no_modalities(size.width),
        {},
    )


def predictor(size: Size, encoder_width: int, mask_tokens: int, prefix: str = "predictor.") -> Module:
    """Returns the entries of a predictor; `prefix` is that of every name in the file."""
    width, embedding = size.width, f"{prefix}embeddings"
    return Module(
        [
            *entries.linear(f"{embedding}.predictor_embeddings", "embed", encoder_width, width),
            Entry(f"{embedding}.mask_tokens", (mask_tokens, 1, 1, width), "mask_tokens", (0, 1, 2, 3)),
            *entries.stack(NAMES, f"{prefix}layer", size),
            *entries.layer_norm(f"{prefix}layernorm", "norm", width),
            *entries.linear(f"{prefix}proj", "head_target", width, encoder_width),
        ],
        entries.no_modalities(width) | entries.no_context_head(width, encoder_width),
        {},
    )
