"""What one chip can do, as its maker publishes it."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip.

    Attributes:
        name: as topologies call it.
        flops: peak bfloat16 FLOP/s of the matrix units.
        hbm: bytes of memory that a program can have.
        hbm_bandwidth: bytes/s between memory and chip.
        ici_bandwidth: bytes/s that a chip can send to its neighbours over all links together; as much can come in.
        torus: sides of a slice: 2 or 3.
        slice: chips of the largest slice there is.
        source: where the figures come from.
    """

    name: str
    flops: float
    hbm: int
    hbm_bandwidth: float
    ici_bandwidth: float
    torus: int
    slice: int
    source: str


# Cloud TPU gives the bandwidth between chips for both directions together (v5e: 400 GB/s over 4 ports): half of it each
# way.
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
