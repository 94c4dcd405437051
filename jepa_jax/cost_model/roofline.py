"""A lower bound on the time of a step: the time of its busiest resource."""

import dataclasses

from jepa_jax.cost_model.chips import Chip


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that one step occupies each resource of a chip at its published peak.

    Attributes:
        compute: matrix units, for all FLOPs of the program in bfloat16.
        memory: transfers between the chip and its memory.
        network: transfers between chips.
    """

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        """Lower bound on the time of a step."""
        return max(self.compute, self.memory, self.network)

    @property
    def binds(self) -> str:
        """Name of the resource that takes longest."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def roofline(chip: Chip, *, flops: int | float, traffic: int | float, sent: int | float) -> Roofline:
    """Returns the roofline of a step from FLOPs, bytes of memory traffic and bytes sent, each per chip.

    A roofline (Williams, Waterman, Patterson 2009) with the network as a third roof. It is optimistic: it assumes that
    all resources overlap, that traffic is spread evenly over a chip's links, and no latency or host overhead.
    """
    return Roofline(flops / chip.flops, traffic / chip.hbm_bandwidth, sent / chip.ici_bandwidth)
