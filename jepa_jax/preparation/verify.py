"""Everything in a prepared set read back: each record where the index says, each frame decodable."""

import pathlib
from typing import NamedTuple

from jepa_jax import progress
from jepa_jax.data import prepared
from jepa_jax.preparation import parallel
from jepa_jax.preparation.raw import PrepareError

ITEMS_AT_ONCE = 64
SHOWN = 10


class _Stretch(NamedTuple):
    folder: str
    part: str
    start: int
    stop: int


def verify(folder: pathlib.Path, processes: int) -> str:
    """Reads every frame of a complete set; returns what was read.

    Raises:
        PrepareError: something is damaged; lists the first ten.
        NotPreparedError: the set is not complete.
    """
    description = prepared.describe(folder)
    items, frames = description["items"], description["frames"]
    problems = [
        f"{part}: its index lists {len(index.ids):,} items of {index.count_I.sum():,} frames, {items[part]:,} of "
        f"{frames[part]:,} were written"
        for part, index in ((part, prepared.Index.load(folder / f"index-{part}.npz")) for part in items)
        if (len(index.ids), index.count_I.sum()) != (items[part], frames[part])
    ]
    total = sum(items.values())
    if not problems:
        stretches = [
            _Stretch(str(folder), part, start, min(start + ITEMS_AT_ONCE, count))
            for part, count in items.items()
            for start in range(0, count, ITEMS_AT_ONCE)
        ]
        with progress.Progress(total, description["kind"], name="verify") as bar:
            problems = [p for found in parallel.run(_problems, stretches, processes, bar) for p in found]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        told = f"the first {SHOWN} of {len(problems):,}" if len(problems) > SHOWN else str(len(problems))
        raise PrepareError(f"{folder} is damaged; prepare it anew. Problems ({told}):\n{listed}")
    return f"{folder}: {sum(frames.values()):,} frames of {total:,} {description['kind']} read back, all sound."


def _problems(stretch: _Stretch, tick: parallel.Tick) -> list[str]:
    folder, part = stretch.folder, stretch.part
    index = prepared.Index.load(pathlib.Path(folder) / f"index-{part}.npz")
    first_records = index.first_records()
    problems = []
    for item in range(stretch.start, stretch.stop):
        count = int(index.count_I[item])
        expected = {"id": index.ids[item].encode(), "label": int(index.label_I[item]), "count": count}
        for first in range(0, count, prepared.FRAMES_A_RECORD):
            wanted = expected | {"first": first}
            try:
                record = prepared.records(folder, part)[int(first_records[item]) + first // prepared.FRAMES_A_RECORD]
                got = {key: record[key] for key in wanted}
                if got != wanted or len(record["frames"]) != min(prepared.FRAMES_A_RECORD, count - first):
                    raise ValueError(f"holds {len(record['frames'])} frames of {got}, expected {wanted}")
                for jpeg in record["frames"]:
                    prepared.decode_jpeg(jpeg)
            except (RuntimeError, ValueError, IndexError) as error:
                problems.append(f"{part}, {index.ids[item]}, frames from {first}: {error}")
        tick()
    return problems
