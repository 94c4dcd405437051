"""Which attention `config.encoder.attention=auto` is: the platform's kernel if it is correct here, else XLA's."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
from jaxtyping import DTypeLike

from jepa_jax.models.attention import self_check, support
from jepa_jax.models.attention.kernels import Attend
from jepa_jax.models.attention.support import Shape


@dataclasses.dataclass(frozen=True)
class Choice:
    """The attention of a model.

    Attributes:
        kind: what `attend` is called with.
        reason: which kernel it is, or why it is XLA's attention.
    """

    kind: Literal["xla", "fused"]
    reason: str

    def __str__(self) -> str:
        return f"fused ({self.reason})" if self.kind == "fused" else f"xla, because {self.reason}"


def choose(platform: str, dtype: DTypeLike, shapes: Collection[Shape], kernel: Attend | None = None) -> Choice:
    """Returns the attention that `auto` is for a model.

    The kernel is chosen if it supports any of the shapes. `kernels.fused` computes the others by XLA operations.

    Args:
        platform: of the devices: cpu, gpu or tpu.
        dtype: of the activations.
        shapes: of every attention in the model.
        kernel: the fused attention, to compare with XLA's on the default device, once for each head width; None if the
            devices are not present.
    """
    reasons = {shape: support.unsupported(platform, dtype, shape) for shape in sorted(shapes)}
    supported = [shape for shape, reason in reasons.items() if not reason]
    if not supported:
        return Choice("xla", next(iter(reasons.values())))
    name = support.NAMES[platform]
    if kernel is None:
        return Choice("fused", name)
    longest = {shape.head_width: shape for shape in supported}  # sorted by tokens, so the last one stays
    try:
        differences = [self_check.difference(kernel, dtype, shape) for shape in longest.values()]
    except Exception as error:  # whatever the kernel raises, XLA's attention works
        return Choice("xla", f"{name} failed: {type(error).__name__}: {_first_line(error)}")
    largest, allowed = float(np.max(differences)), self_check.tolerance(platform, dtype)
    if not largest <= allowed:  # also if it is NaN
        return Choice("xla", f"{name} differs from XLA's by {largest:.2g}; {allowed:.2g} is allowed")
    return Choice("fused", f"{name}, within {largest:.2g} of XLA's; {allowed:.2g} is allowed")


def agree(choices: Sequence[Choice]) -> Choice:
    """Returns the choice of all processes, given each one's own: fused only if all of them chose it."""
    for process, choice in enumerate(choices):
        if choice.kind == "xla":
            where = f" (in process {process})" if process else ""
            return dataclasses.replace(choice, reason=choice.reason + where)
    return choices[0]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
