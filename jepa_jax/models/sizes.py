"""Sizes of transformers, by name (those of V-JEPA 2, arXiv:2506.09985) or by number."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Size:
    """Size of a transformer.

    Attributes:
        width: number of channels.
        depth: number of blocks.
        heads: number of attention heads.
        mlp_ratio: hidden width of the MLP, as a multiple of the width.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.width // self.heads


ENCODERS = {
    "vit_tiny": Size(192, 12, 3),
    "vit_small": Size(384, 12, 6),
    "vit_base": Size(768, 12, 12),
    "vit_large": Size(1024, 24, 16),
    "vit_huge": Size(1280, 32, 16),
    "vit_giant": Size(1408, 40, 16, 48 / 11),
    "vit_giant_xformers": Size(1408, 40, 22, 48 / 11),
}


def parse_size(text: str) -> Size:
    """Parses a name in `ENCODERS`, or WIDTHxDEPTHxHEADS, as in `192x12x3`.

    Raises:
        ValueError: the text is neither, or the heads do not have an even number of channels. Rotary positions rotate
            pairs of channels.
    """
    if text in ENCODERS:
        return ENCODERS[text]
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if not match:
        raise ValueError(f"size {text!r} is neither WIDTHxDEPTHxHEADS (192x12x3) nor one of {', '.join(ENCODERS)}")
    width, depth, heads = map(int, match.groups())
    if not (depth and heads) or width % (2 * heads):
        raise ValueError(f"size {text!r}: the width must be a positive even multiple of the heads, the depth positive")
    return Size(width, depth, heads)
