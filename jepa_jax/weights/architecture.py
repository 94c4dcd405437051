"""Sizes of encoder, predictor and probe, from the shapes in a file of the original PyTorch names.

Such files have no settings. Shapes give all but the number of heads, which the released sizes give. A size is what most
tensors agree on, so that a single wrong tensor is reported as that tensor and not as another size.
"""

import collections
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jepa_jax.config import EncoderConfig, PredictorConfig
from jepa_jax.models.sizes import ENCODERS, Size
from jepa_jax.weights.formats import vjepa2, vjepa2_1
from jepa_jax.weights.tensors import Tensor, WeightsError

RELEASED = ("vit_base", "vit_large", "vit_huge", "vit_giant_xformers", "vit_gigantic")
HEADS = {ENCODERS[name].width: ENCODERS[name].heads for name in RELEASED}  # by width
PREDICTOR_HEADS = {384: 12}
BLOCK_TENSORS = 12
WRAPPERS = ("module.backbone.", "module.", "backbone.", "")  # prefixes by which training wraps modules

Tensors = Mapping[str, Tensor]


class Stack(NamedTuple):
    """Width, number and hidden width of blocks."""

    width: int
    depth: int
    hidden: int


def prefix(tensors: Tensors) -> str:
    """Returns the longest prefix in `WRAPPERS` that most names have."""
    return next(
        found for found in WRAPPERS if 2 * sum(key.startswith(found) for key in tensors) > len(tensors) or not found
    )


def is_vjepa2_1(tensors: Tensors) -> bool:
    """Whether an encoder is a V-JEPA 2.1 and not a V-JEPA 2, by the norms of its levels."""
    return any(".norms_block." in f".{key}" for key in tensors)


def encoder(tensors: Tensors, start: str, source: str, heads: int = 0) -> EncoderConfig:
    """Returns the settings of an encoder.

    Args:
        tensors: of the encoder.
        start: prefix of all names.
        source: the file, for errors.
        heads: number of attention heads; 0: that of the released encoder of this width.

    Raises:
        WeightsError: no blocks, or a width or depth for which heads or levels are not known.
    """
    found = blocks(tensors, f"{start}blocks", source)
    size = _size(found, heads, HEADS, source, "heads")
    shapes = [tensors[key].shape for key in (f"{start}patch_embed.proj.weight",) if key in tensors]
    tubelet, patch = next((shape[2:4] for shape in shapes if len(shape) == 5), (2, 16))
    if not is_vjepa2_1(tensors):
        return EncoderConfig(size=str(size), patch=patch, tubelet=tubelet, levels=1, rotary="tiled")
    if found.depth not in vjepa2_1.LEVEL_ENDS:
        depths = ", ".join(map(str, vjepa2_1.LEVEL_ENDS))
        raise WeightsError(f"{source} has {found.depth} blocks; V-JEPA 2.1's levels are known for {depths}.")
    ends = vjepa2_1.LEVEL_ENDS[found.depth]
    equal = all(end * len(ends) == found.depth * number for number, end in enumerate(ends, start=1))
    return EncoderConfig(
        size=str(size), patch=patch, tubelet=tubelet, levels=len(ends), level_ends=() if equal else ends
    )


def predictor(
    tensors: Tensors, start: str, source: str, of: EncoderConfig, encoder_width: int, heads: int = 0
) -> PredictorConfig:
    """Returns the settings of a predictor.

    Args:
        tensors: of the predictor.
        start: prefix of all names.
        source: the file, for errors.
        of: the encoder.
        encoder_width: its width.
        heads: number of attention heads; 0: that of released predictors.

    Raises:
        WeightsError: no blocks, or a width for which heads are not known.
    """
    size = _size(blocks(tensors, f"{start}predictor_blocks", source), heads, PREDICTOR_HEADS, source, "predictor_heads")
    if of.rotary == "tiled":
        return PredictorConfig(size=str(size), mask_tokens=vjepa2.MASK_TOKENS)
    layers = any(re.match(rf"{re.escape(start)}predictor_embed\.\d", key) for key in tensors)
    heads_of_two = (
        f"{start}{name}.{kind}" for name in ("predictor_proj", "predictor_proj_context") for kind in ("weight", "bias")
    )
    outputs = _most(tensors[key].shape for key in heads_of_two if key in tensors)
    return PredictorConfig(
        size=str(size),
        levels=0 if layers else 1,
        output=0 if outputs == encoder_width * of.levels else outputs,
        mask_tokens=vjepa2_1.MASK_TOKENS,
    )


def blocks(tensors: Tensors, key: str, source: str) -> Stack:
    """Returns the size of the blocks KEY.0, KEY.1, ….

    Raises:
        WeightsError: there are none.
    """
    of = re.compile(rf"{re.escape(key)}\.(\d+)\.(.+)")
    named = [(match[1], match[2], tensors[match[0]].shape) for match in map(of.fullmatch, tensors) if match]
    counts = collections.Counter(number for number, _, _ in named)
    found = Stack(
        _most(shape for _, name, shape in named if name == "norm1.weight"),
        sum(count >= BLOCK_TENSORS // 2 for count in counts.values()),
        _most(shape for _, name, shape in named if name == "mlp.fc1.bias"),
    )
    if 0 in found:
        raise WeightsError(
            f"{source} has no transformer blocks {key}.0.norm1.weight, …; it has "
            f"{', '.join(list(tensors)[:3]) or 'nothing'}, …"
        )
    return found


def _size(found: Stack, heads: int, known: Mapping[int, int], source: str, argument: str) -> Size:
    if not heads and found.width not in known:
        raise WeightsError(
            f"{source} has blocks of width {found.width}. Heads are known for the released widths, "
            f"{', '.join(map(str, known))}; for others, give {argument}=NUMBER."
        )
    heads = heads or known[found.width]
    if heads < 1 or found.width % (2 * heads):
        raise WeightsError(f"{argument} is {heads}; expected a divisor of half the width, {found.width // 2}.")
    return Size(found.width, found.depth, heads, found.hidden / found.width)


def _most(shapes: Iterable[tuple[int, ...]]) -> int:
    """Returns the most frequent size of the first axis; 0 without shapes."""
    counts = collections.Counter(shape[0] for shape in shapes if shape)
    return counts.most_common(1)[0][0] if counts else 0
