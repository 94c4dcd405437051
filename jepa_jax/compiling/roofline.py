"""The least time a step can take: that of the resource it keeps busy longest."""

import dataclasses

from jepa_jax.compiling.chips import Chip


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that one step takes each resource of a chip at its published peak, all resources working at once.

    Attributes:
        compute: matrix units, for all FLOPs of the program in bfloat16.
        memory: between chip and main memory.
        network: between chips.
    """

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        """Of a step, at least."""
        return max(self.compute, self.memory, self.network)

    @property
    def binds(self) -> str:
        """The resource that takes longest."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def roofline(chip: Chip, *, flops: int | float, traffic: int | float, sent: int | float) -> Roofline:
    """The bound on a step that costs each chip so many FLOPs, bytes of memory traffic and bytes sent to other chips.

    A roofline (Williams, Waterman, Patterson 2009) with the network as a third roof. It is optimistic: no resource
    waits for another, every link of the chip carries its share, nothing is lost to latency or the host.
    """
    return Roofline(flops / chip.flops, traffic / chip.hbm_bandwidth, sent / chip.ici_bandwidth)
