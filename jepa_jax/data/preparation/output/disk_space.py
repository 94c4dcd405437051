"""Disk space of a prepared set: its expected size, and whether it fits."""

import collections
import shutil

from jepa_jax.data import faults
from jepa_jax.data.preparation import frames
from jepa_jax.data.preparation.plan import Plan
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.files.remote.remote_path import RemotePath

SAMPLE_ITEMS = 24  # items encoded to estimate the size of the prepared set
SHARD_OVERHEAD = 2**17  # bytes: ArrayRecord pads to blocks of 64 KiB
MARGIN = 1.05  # factor on the expected size, which is an estimate


def encoded_bytes(plan: Plan) -> float:
    """Estimates the size of all JPEG frames by encoding an evenly spaced sample of items.

    Raises:
        PrepareError: no item of the sample can be decoded.
    """
    items = [item for items in plan.parts.values() for item in items]
    sampled = items[:: max(1, len(items) // SAMPLE_ITEMS)][:SAMPLE_ITEMS]
    in_file = collections.Counter(item.path for item in items)  # images of a parquet file share it
    raw_bytes = jpeg_bytes = 0.0
    reasons = []
    for item in sampled:
        try:
            jpegs = frames.of_item(item, plan.raw.kind, plan.settings)
        except faults.DecodeError as error:
            reasons.append(str(error))
            continue
        jpeg_bytes += sum(map(len, jpegs.frames))
        raw_bytes += plan.files[item.path][0] / in_file[item.path]
    if not jpeg_bytes:
        raise PrepareError(f"None of {len(sampled)} items tried can be decoded. The first: {reasons[0]}.")
    return plan.raw_bytes * jpeg_bytes / raw_bytes


def expected_bytes(plan: Plan, encoded: float) -> int:
    """Size of the prepared set, from that of its JPEG frames."""
    return round(encoded) + SHARD_OVERHEAD * len(plan.all_shards())


def check_free_space(plan: Plan, expected: int) -> None:
    """Checks that the rest of the prepared set will fit on the disk. Stores have no limit.

    Raises:
        PrepareError: there is not enough free space.
    """
    if isinstance(plan.folder, RemotePath):
        return
    written = sum(file.stat().st_size for file in plan.folder.iterdir() if file.is_file())
    needed, free = max(0, round(expected * MARGIN) - written), shutil.disk_usage(plan.folder).free
    if needed > free:
        raise PrepareError(
            f"{plan.folder} has {gigabytes(free)} free; the prepared set is expected to take {gigabytes(needed)} "
            f"{'more' if written else 'there'}. Choose --out on a larger disk, or a smaller --short-side or --quality."
        )


def gigabytes(size: int) -> str:
    """Formats a size as `12.3 GB`, or in megabytes below 1 GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
