"""V-JEPA 2's attentive probe: as its authors released it, and as part of VJEPA2ForVideoClassification.

Both become `models.probe_heads.AttentiveBlocksProbe`. The original has 16 heads and LayerNorms with ε 1e-5;
transformers has as many heads as the encoder, and ε 1e-6.
"""

from collections.abc import Iterator, Sequence

from jepa_jax.weights import entries
from jepa_jax.weights.entries import BlockNames, Entry, Module

TRANSFORMERS = BlockNames(
    "layer_norm1",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.out_proj",
    "layer_norm2",
    "mlp.fc1",
    "mlp.fc2",
)


def original(width: int, classes: int, blocks: int, prefix: str = "module.") -> Module:
    """Returns the entries of a released probe with `blocks` attention blocks, the last of them that of the query."""
    pooler = f"{prefix}pooler"
    cross = f"{pooler}.cross_attention_block"
    return _probe(
        width,
        classes,
        blocks,
        query=f"{pooler}.query_tokens",
        names=entries.ORIGINAL,
        block=f"{pooler}.blocks",
        norms=(f"{cross}.norm1", f"{cross}.norm2"),
        to_query=f"{cross}.xattn.q",
        key_value=[f"{cross}.xattn.kv"],
        mlp=f"{cross}.mlp",
        head=f"{prefix}linear",
    )


def transformers(width: int, classes: int, blocks: int) -> Module:
    """Returns the entries of pooler and classifier of VJEPA2ForVideoClassification."""
    cross = "pooler.cross_attention_layer"
    return _probe(
        width,
        classes,
        blocks,
        query="pooler.query_tokens",
        names=TRANSFORMERS,
        block="pooler.self_attention_layers",
        norms=(f"{cross}.layer_norm1", f"{cross}.layer_norm2"),
        to_query=f"{cross}.cross_attn.q_proj",
        key_value=[f"{cross}.cross_attn.k_proj", f"{cross}.cross_attn.v_proj"],
        mlp=f"{cross}.mlp",
        head="classifier",
    )


def _probe(
    width: int,
    classes: int,
    blocks: int,
    *,
    query: str,
    names: BlockNames,
    block: str,
    norms: tuple[str, str],
    to_query: str,
    key_value: Sequence[str],
    mlp: str,
    head: str,
) -> Module:
    return Module(
        [
            Entry(query, (1, 1, width), "query", (2,)),
            *(entry for i in range(blocks - 1) for entry in _self_attention(names, f"{block}.{i}", i + 1, width)),
            *entries.layer_norm(norms[0], "norm_tokens", width),
            *entries.linear(to_query, "to_query", width, width),
            *entries.packed(key_value, "key_value", width, parts=2),
            *entries.layer_norm(norms[1], "norm_mlp", width),
            *entries.linear(f"{mlp}.fc1", "mlp/in", width, 4 * width),
            *entries.linear(f"{mlp}.fc2", "mlp/out", 4 * width, width),
            *entries.linear(head, "head", width, classes),
        ],
        {},
        {},
    )


def _self_attention(names: BlockNames, key: str, number: int, width: int) -> Iterator[Entry]:
    """Yields the entries of a block, whose MLP is a module of its own in the probe."""
    path = f"block_{number}"
    yield from entries.layer_norm(f"{key}.{names.norm_attention}", f"{path}/norm_attention", width)
    yield from entries.packed([f"{key}.{name}" for name in names.qkv], f"{path}/qkv", width)
    yield from entries.linear(f"{key}.{names.attention_out}", f"{path}/attention_out", width, width)
    yield from entries.layer_norm(f"{key}.{names.norm_mlp}", f"{path}/norm_mlp", width)
    yield from entries.linear(f"{key}.{names.mlp_in}", f"{path}/mlp/in", width, 4 * width)
    yield from entries.linear(f"{key}.{names.mlp_out}", f"{path}/mlp/out", 4 * width, width)
