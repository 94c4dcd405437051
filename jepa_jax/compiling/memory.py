"""Memory of one chip while a step runs, from the compiler's own account or from its refusal."""

import dataclasses
import re
from typing import Any

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on a chip.

    Attributes:
        arguments: training state and batch, which the state after the step takes over.
        temporary: activations, gradients and what else lives only during the step.
        program: the compiled code, and what the system keeps for itself where the compiler says so.
        limit: what the compiler let the program have; None if it compiled, and so fits.
    """

    arguments: int
    temporary: int
    program: int
    limit: int | None = None

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.temporary + self.program


def from_analysis(stats: Any) -> Memory:
    """Of a step that compiled: `Compiled.memory_analysis()`."""
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes  # metrics, whose memory is no argument's
    return Memory(stats.argument_size_in_bytes, stats.temp_size_in_bytes + new, stats.generated_code_size_in_bytes)


def from_message(message: str) -> Memory | None:
    """Of a step that the TPU compiler refused; None if it did so for another reason.

    It says how much was used of how much, and what for: "Used 20.53G of 15.75G hbm … arguments 4.00G".
    """
    used = re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", message)
    if not used:
        return None
    total, limit = _bytes(*used.group(1, 2)), _bytes(*used.group(3, 4))
    part = {
        name: _bytes(*found.group(1, 2)) if (found := re.search(rf"\b{name}\s+([\d.]+)([KMGT]?)B?\b", message)) else 0
        for name in ("arguments", "reserved")
    }
    return Memory(part["arguments"], total - part["arguments"] - part["reserved"], part["reserved"], limit)


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * UNITS[unit])
