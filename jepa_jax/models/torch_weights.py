"""Conversion of PyTorch parameters, with the names of V-JEPA or of Hugging Face transformers, to this package's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]


def linear(weights: Weights, name: str) -> dict[str, np.ndarray]:
    """Converts a Linear: [out, in] becomes [in, out]."""
    return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}


def layer_norm(weights: Weights, name: str) -> dict[str, np.ndarray]:
    """Converts a LayerNorm."""
    return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def patch_embedding(weights: Weights, name: str) -> dict[str, np.ndarray]:
    """Converts a Conv3d over tubelets: [out, in, t, y, x] becomes [t, y, x, in, out]."""
    return {"kernel": weights[f"{name}.weight"].transpose(2, 3, 4, 1, 0), "bias": weights[f"{name}.bias"]}


def vjepa_block(weights: Weights, name: str) -> dict[str, Any]:
    """Converts a block with V-JEPA's names."""
    return {
        "norm_attention": layer_norm(weights, f"{name}.norm1"),
        "qkv": linear(weights, f"{name}.attn.qkv"),
        "attention_out": linear(weights, f"{name}.attn.proj"),
        "norm_mlp": layer_norm(weights, f"{name}.norm2"),
        "mlp_in": linear(weights, f"{name}.mlp.fc1"),
        "mlp_out": linear(weights, f"{name}.mlp.fc2"),
    }


def transformers_block(weights: Weights, name: str) -> dict[str, Any]:
    """Converts a block of transformers, which has separate matrices for queries, keys and values."""
    parts = [linear(weights, f"{name}.attention.{part}") for part in ("query", "key", "value")]
    return {
        "norm_attention": layer_norm(weights, f"{name}.norm1"),
        "qkv": {key: np.concatenate([part[key] for part in parts], axis=-1) for key in ("kernel", "bias")},
        "attention_out": linear(weights, f"{name}.attention.proj"),
        "norm_mlp": layer_norm(weights, f"{name}.norm2"),
        "mlp_in": linear(weights, f"{name}.mlp.fc1"),
        "mlp_out": linear(weights, f"{name}.mlp.fc2"),
    }


def stacked(block: Callable[[Weights, str], dict[str, Any]], weights: Weights, names: Sequence[str]) -> dict[str, Any]:
    """Converts blocks and stacks them along a first axis, the layout of scanned blocks."""
    blocks = [block(weights, name) for name in names]
    return {
        "block": {
            part: {key: np.stack([b[part][key] for b in blocks]) for key in blocks[0][part]} for part in blocks[0]
        }
    }


def vjepa_encoder(weights: Weights, ends: Sequence[int], prefix: str = "encoder.") -> dict[str, Any]:
    """Converts a V-JEPA 2.1 encoder; `ends` are the last blocks of the levels, counted from 1."""
    groups = {
        f"groups_{g}": stacked(vjepa_block, weights, [f"{prefix}blocks.{i}" for i in range(first, end)])
        for g, (first, end) in enumerate(zip([0, *ends], ends, strict=False))
    }
    norms = {f"norms_{g}": layer_norm(weights, f"{prefix}norms_block.{g}") for g in range(len(ends))}
    return {
        "patch_embedding": patch_embedding(weights, f"{prefix}patch_embed.proj"),
        "image_patch_embedding": patch_embedding(weights, f"{prefix}patch_embed_img.proj"),
        "video_modality": weights[f"{prefix}video_mod_embed"],
        "image_modality": weights[f"{prefix}img_mod_embed"],
        **groups,
        **norms,
    }


def vjepa_predictor(weights: Weights, depth: int, prefix: str = "predictor.") -> dict[str, Any]:
    """Converts a V-JEPA 2.1 predictor."""
    return {
        "embed_levels": linear(weights, f"{prefix}predictor_embed.0"),
        "embed": linear(weights, f"{prefix}predictor_embed.2"),
        "mask_tokens": np.stack([weights[f"{prefix}mask_tokens.{i}"] for i in (0, 1)]),
        "video_modality": weights[f"{prefix}video_mod_embed"],
        "image_modality": weights[f"{prefix}img_mod_embed"],
        "blocks": stacked(vjepa_block, weights, [f"{prefix}predictor_blocks.{i}" for i in range(depth)]),
        "norm": layer_norm(weights, f"{prefix}predictor_norm"),
        "head_target": linear(weights, f"{prefix}predictor_proj"),
        "head_context": linear(weights, f"{prefix}predictor_proj_context"),
    }


def transformers_encoder(weights: Weights, depth: int, prefix: str = "encoder.") -> dict[str, Any]:
    """Converts an encoder of transformers, which has one level, no modality embedding and no image path."""
    embedding = patch_embedding(weights, f"{prefix}embeddings.patch_embeddings.proj")
    width = embedding["bias"].shape[0]
    return {
        "patch_embedding": embedding,
        "image_patch_embedding": {
            "kernel": embedding["kernel"].sum(0, keepdims=True),  # embeds a frame like a tubelet that repeats it
            "bias": embedding["bias"],
        },
        "video_modality": np.zeros((1, 1, width), np.float32),
        "image_modality": np.zeros((1, 1, width), np.float32),
        "groups_0": stacked(transformers_block, weights, [f"{prefix}layer.{i}" for i in range(depth)]),
        "norms_0": layer_norm(weights, f"{prefix}layernorm"),
    }


def transformers_predictor(weights: Weights, depth: int, prefix: str = "predictor.") -> dict[str, Any]:
    """Converts a predictor of transformers. It has no head for context tokens; that head is set to zero."""
    head = linear(weights, f"{prefix}proj")
    embed = linear(weights, f"{prefix}embeddings.predictor_embeddings")
    width = embed["bias"].shape[0]
    return {
        "embed": embed,
        "mask_tokens": weights[f"{prefix}embeddings.mask_tokens"],
        "video_modality": np.zeros((1, 1, width), np.float32),
        "image_modality": np.zeros((1, 1, width), np.float32),
        "blocks": stacked(transformers_block, weights, [f"{prefix}layer.{i}" for i in range(depth)]),
        "norm": layer_norm(weights, f"{prefix}layernorm"),
        "head_target": head,
        "head_context": {key: np.zeros_like(value) for key, value in head.items()},
    }
