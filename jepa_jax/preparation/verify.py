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


class _Found(NamedTuple):
    frames: int
    problems: list[str]


def verify(folder: pathlib.Path, processes: int) -> str:
    """Reads every frame of a complete set; returns what was read.

    Raises:
        PrepareError: something is damaged; lists the first ten.
        NotPreparedError: the set is not complete.
    """
    description = prepared.describe(folder)
    stretches = [
        _Stretch(str(folder), part, start, min(start + ITEMS_AT_ONCE, count))
        for part, count in description["items"].items()
        for start in range(0, count, ITEMS_AT_ONCE)
    ]
    total = sum(description["items"].values())
    with progress.Progress(total, description["kind"], name="verify") as bar:
        found = parallel.run(_read, stretches, processes, bar)
    problems = [problem for stretch in found for problem in stretch.problems]
    problems += [
        f"{part}: its index lists {len(index.ids):,} items with {index.count_I.sum():,} frames, {count:,} with "
        f"{description['frames'][part]:,} were written"
        for part, count in description["items"].items()
        for index in [prepared.Index.load(folder / f"index-{part}.npz")]
        if (len(index.ids), index.count_I.sum()) != (count, description["frames"][part])
    ]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        told = f"the first {SHOWN} of {len(problems):,}" if len(problems) > SHOWN else str(len(problems))
        raise PrepareError(f"{folder} is damaged; prepare it anew. Problems ({told}):\n{listed}")
    frames = sum(stretch.frames for stretch in found)
    return f"{folder}: {frames:,} frames of {total:,} {description['kind']} read back, all sound."


def _read(stretch: _Stretch, tick: parallel.Tick) -> _Found:
    folder, part = stretch.folder, stretch.part
    index = prepared.Index.load(pathlib.Path(folder) / f"index-{part}.npz")
    first_records = index.first_records()
    frames, problems = 0, []
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
                    frames += 1
            except (RuntimeError, ValueError, IndexError) as error:
                problems.append(f"{part}, {index.ids[item]}, frames from {first}: {error}")
        tick()
    return _Found(frames, problems)
