"""Published peak figures of accelerator chips."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip.

    Attributes:
        name: as in topology names.
        flops: peak bfloat16 FLOP/s of the matrix units.
        hbm: bytes of memory available to a program.
        hbm_bandwidth: bytes/s between the chip and its memory.
        ici_bandwidth: bytes/s that a chip can send over all its links; it can receive as much at the same time.
        torus: dimensions of a slice, 2 or 3.
        slice: number of chips in the largest slice.
        source: the publication with the figures.
    """

    name: str
    flops: float
    hbm: int
    hbm_bandwidth: float
    ici_bandwidth: float
    torus: int
    slice: int
    source: str


# Cloud TPU publishes inter-chip bandwidth summed over both directions (v5e: 400 GB/s over 4 ports). This is half of it.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            flops=275e12,
            hbm=32 * GIB,
            hbm_bandwidth=1200e9,
            ici_bandwidth=300e9,
            torus=3,
            slice=4096,
            source="cloud.google.com/tpu/docs/v4; links (6 of 50 GB/s): arXiv:2304.01433, table 4",
        ),
        Chip(
            name="v5e",
            flops=197e12,
            hbm=16 * GIB,
            hbm_bandwidth=819e9,
            ici_bandwidth=200e9,
            torus=2,
            slice=256,
            source="cloud.google.com/tpu/docs/v5e",
        ),
        Chip(
            name="v5p",
            flops=459e12,
            hbm=95 * GIB,
            hbm_bandwidth=2765e9,
            ici_bandwidth=600e9,
            torus=3,
            slice=6144,
            source="cloud.google.com/tpu/docs/v5p",
        ),
        Chip(
            name="v6e",
            flops=918e12,
            hbm=32 * GIB,
            hbm_bandwidth=1638e9,
            ici_bandwidth=400e9,
            torus=2,
            slice=256,
            source="cloud.google.com/tpu/docs/v6e",
        ),
    )
}
