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

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP."""
        return round(self.width * self.mlp_ratio)

    def __str__(self) -> str:
        """In numbers, as `parse_size` reads them."""
        hidden = "" if self.hidden == 4 * self.width else f"x{self.hidden}"
        return f"{self.width}x{self.depth}x{self.heads}{hidden}"


ENCODERS = {
    "vit_tiny": Size(192, 12, 3),
    "vit_small": Size(384, 12, 6),
    "vit_base": Size(768, 12, 12),
    "vit_large": Size(1024, 24, 16),
    "vit_huge": Size(1280, 32, 16),
    "vit_giant": Size(1408, 40, 16, 48 / 11),
    "vit_giant_xformers": Size(1408, 40, 22, 48 / 11),
    "vit_gigantic": Size(1664, 48, 26, 64 / 13),
}


def parse_size(text: str) -> Size:
    """Parses a name in `ENCODERS`, WIDTHxDEPTHxHEADS (`192x12x3`) or WIDTHxDEPTHxHEADSxHIDDEN (`1408x40x22x6144`).

    HIDDEN is the hidden width of the MLP; by default it is 4 · WIDTH.

    Raises:
        ValueError: the text is neither, or the heads do not have an even number of channels. Rotary positions rotate
            pairs of channels.
    """
    if text in ENCODERS:
        return ENCODERS[text]
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?:x(\d+))?", text)
    if not match:
        raise ValueError(f"size {text!r} is neither WIDTHxDEPTHxHEADS (192x12x3) nor one of {', '.join(ENCODERS)}")
    width, depth, heads = map(int, match.groups()[:3])
    if not (width and depth and heads) or width % (2 * heads):
        raise ValueError(f"size {text!r}: the width must be a positive even multiple of the heads, the depth positive")
    if match[4] is None:
        return Size(width, depth, heads)
    if not int(match[4]):
        raise ValueError(f"size {text!r}: the hidden width of the MLP must be positive")
    return Size(width, depth, heads, int(match[4]) / width)
