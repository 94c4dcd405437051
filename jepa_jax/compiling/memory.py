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
        program: the compiled code.
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


def from_message(message: str, arguments: int) -> Memory | None:
    """Of a step that the TPU compiler refused; None if it did so for another reason than memory.

    It refuses early ("… memory required for HLO temporaries (112.50G) exceeds available HBM (95.74G)") or late ("Used
    20.53G of 15.75G hbm", where what is used includes arguments).

    Args:
        message: of the compiler.
        arguments: bytes of state and batch on a chip, which it does not always tell.
    """
    number = r"([\d.]+)([KMGT]?)"
    if early := re.search(rf"HLO temporaries \({number}\) exceeds available HBM \({number}\)", message):
        return Memory(arguments, _bytes(*early.group(1, 2)), 0, _bytes(*early.group(3, 4)))
    if late := re.search(rf"Used {number} of {number} hbm", message):
        used, limit = _bytes(*late.group(1, 2)), _bytes(*late.group(3, 4))
        return Memory(arguments, max(used - arguments, 0), 0, limit)
    return None


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * UNITS[unit])
