"""Memory of one chip during a step, from the compiler's analysis or its out-of-memory error."""

import dataclasses
import re
from typing import Any

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on a chip.

    Attributes:
        arguments: training state and batch; the next state reuses this memory.
        temporary: activations, gradients and everything else that lives only during the step.
        program: the compiled code.
        limit: the compiler's limit if the step did not fit; None if it compiled.
    """

    arguments: int
    temporary: int
    program: int
    limit: int | None = None

    @property
    def total(self) -> int:
        """Bytes in total."""
        return self.arguments + self.temporary + self.program


def from_analysis(stats: Any) -> Memory:
    """Returns the memory of a compiled step from `Compiled.memory_analysis()`."""
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes  # metrics, which do not reuse an argument's memory
    return Memory(stats.argument_size_in_bytes, stats.temp_size_in_bytes + new, stats.generated_code_size_in_bytes)


def from_message(message: str, arguments: int) -> Memory | None:
    """Returns the memory from an out-of-memory error of the TPU compiler; None for any other error.

    The compiler fails early ("… memory required for HLO temporaries (112.50G) exceeds available HBM (95.74G)") or late
    ("Used 20.53G of 15.75G hbm", where the bytes used include arguments).

    Args:
        message: the compiler's error.
        arguments: bytes of state and batch on a chip, which the error does not always contain.
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
