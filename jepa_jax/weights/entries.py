"""Where each tensor of a file belongs in the parameters.

A file format is a list of entries for each module. The same entries read a file and write one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jepa_jax.models.sizes import Size


class Entry(NamedTuple):
    """A tensor of a file, and its place in the parameters.

    Attributes:
        key: its name in the file.
        shape: in the file.
        path: of the parameter, with / between the names.
        axes: the tensor's axes in the order of the parameter's. Axes that are left out have one element.
        row: of the parameter's first axis, if that stacks several tensors.
        part: the tensor is the i-th of n parts of the parameter's last axis: (i, n).
    """

    key: str
    shape: tuple[int, ...]
    path: str
    axes: tuple[int, ...]
    row: int | None = None
    part: tuple[int, int] = (0, 1)


class Fill(NamedTuple):
    """A parameter that a file format does not have.

    Attributes:
        why: its value, and why.
        make: returns the value from the parameters that the file has, by path.
    """

    why: str
    make: Callable[[Mapping[str, np.ndarray]], np.ndarray]


class Module(NamedTuple):
    """Encoder, predictor or probe in a file format.

    Attributes:
        entries: of the tensors in the file.
        fills: the parameters that the format does not have, by path.
        ignored: names of tensors that a file may have and that are not used, with the reason.
    """

    entries: Sequence[Entry]
    fills: Mapping[str, Fill]
    ignored: Mapping[str, str]


def zeros(*shape: int, why: str) -> Fill:
    """Returns a fill with zeros."""
    return Fill(f"zeros: {why}", lambda _: np.zeros(shape, np.float32))


def images_as_still_videos() -> dict[str, Fill]:
    """Returns the fills of an image path that embeds a frame like a tubelet that repeats it."""
    return {
        "image_patch_embedding/kernel": Fill(
            "the sum of the video kernel over time: an image is a still video",
            lambda leaves: leaves["patch_embedding/kernel"].sum(0, keepdims=True),
        ),
        "image_patch_embedding/bias": Fill(
            "that of videos: an image is a still video", lambda leaves: leaves["patch_embedding/bias"].copy()
        ),
    }


def no_modalities(width: int) -> dict[str, Fill]:
    """Returns the fills of modality embeddings that do nothing."""
    return {
        f"{name}_modality": zeros(1, 1, width, why="the format has no modality embedding")
        for name in ("video", "image")
    }


def no_context_head(width: int, outputs: int) -> dict[str, Fill]:
    """Returns the fills of a head for context tokens that predicts zeros."""
    why = "the format has no head for context tokens"
    return {
        "head_context/kernel": zeros(width, outputs, why=why),
        "head_context/bias": zeros(outputs, why=why),
    }


def linear(
    key: str, path: str, inputs: int, outputs: int, row: int | None = None, part: tuple[int, int] = (0, 1)
) -> Iterator[Entry]:
    """Yields the entries of a Linear: [out, in] becomes [in, out]."""
    yield Entry(f"{key}.weight", (outputs, inputs), f"{path}/kernel", (1, 0), row, part)
    yield Entry(f"{key}.bias", (outputs,), f"{path}/bias", (0,), row, part)


def packed(keys: Sequence[str], path: str, width: int, row: int | None = None, parts: int = 3) -> Iterator[Entry]:
    """Yields the entries of one Linear for several projections, which the file may have in one or in `parts`."""
    for number, key in enumerate(keys):
        yield from linear(key, path, width, width * parts // len(keys), row, (number, len(keys)))


def layer_norm(key: str, path: str, width: int, row: int | None = None) -> Iterator[Entry]:
    """Yields the entries of a LayerNorm."""
    yield Entry(f"{key}.weight", (width,), f"{path}/scale", (0,), row)
    yield Entry(f"{key}.bias", (width,), f"{path}/bias", (0,), row)


def patch_embedding(key: str, path: str, width: int, tubelet: int, patch: int) -> Iterator[Entry]:
    """Yields the entries of a Conv3d over tubelets: [out, in, t, y, x] becomes [t, y, x, in, out]."""
    yield Entry(f"{key}.weight", (width, 3, tubelet, patch, patch), f"{path}/kernel", (2, 3, 4, 1, 0))
    yield Entry(f"{key}.bias", (width,), f"{path}/bias", (0,))


def embedding(key: str, path: str, width: int) -> Entry:
    """Returns the entry of a modality embedding [1, 1, width]."""
    return Entry(key, (1, 1, width), path, (0, 1, 2))


def mask_tokens(key: str, width: int, count: int) -> Iterator[Entry]:
    """Yields the entries of mask tokens KEY.N [1, 1, width]."""
    for number in range(count):
        yield Entry(f"{key}.{number}", (1, 1, width), "mask_tokens", (0, 1, 2), number)


class BlockNames(NamedTuple):
    """Names of the layers of a block in a file."""

    norm_attention: str
    qkv: Sequence[str]
    attention_out: str
    norm_mlp: str
    mlp_in: str
    mlp_out: str


ORIGINAL = BlockNames("norm1", ("attn.qkv",), "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def block(names: BlockNames, key: str, path: str, size: Size, row: int | None) -> Iterator[Entry]:
    """Yields the entries of a transformer block."""
    width = size.width
    yield from layer_norm(f"{key}.{names.norm_attention}", f"{path}/norm_attention", width, row)
    yield from packed([f"{key}.{name}" for name in names.qkv], f"{path}/qkv", width, row)
    yield from linear(f"{key}.{names.attention_out}", f"{path}/attention_out", width, width, row)
    yield from layer_norm(f"{key}.{names.norm_mlp}", f"{path}/norm_mlp", width, row)
    yield from linear(f"{key}.{names.mlp_in}", f"{path}/mlp_in", width, size.hidden, row)
    yield from linear(f"{key}.{names.mlp_out}", f"{path}/mlp_out", size.hidden, width, row)


def groups(names: BlockNames, key: str, size: Size, ends: Iterable[int]) -> Iterator[Entry]:
    """Yields the entries of an encoder's blocks KEY.N, in groups that end after the blocks `ends`, from 1."""
    first = 0
    for group, end in enumerate(ends):
        for number in range(first, end):
            yield from block(names, f"{key}.{number}", f"groups_{group}/block", size, number - first)
        first = end


def stack(names: BlockNames, key: str, size: Size) -> Iterator[Entry]:
    """Yields the entries of a predictor's blocks KEY.N."""
    for number in range(size.depth):
        yield from block(names, f"{key}.{number}", "blocks/block", size, number)
