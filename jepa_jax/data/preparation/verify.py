"""Verification of a prepared set: checks that every record matches the index and every frame decodes."""

import pathlib
from typing import NamedTuple

from jepa_jax import progress
from jepa_jax.data import faults
from jepa_jax.data.listing import names
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.preparation.runners import parallel
from jepa_jax.data.sources import array_record
from jepa_jax.files import open_files

CHUNK_ITEMS = 64
SHOWN = 10


class _Chunk(NamedTuple):
    folder: str
    part: str
    start: int
    stop: int


def verify(folder: pathlib.Path, processes: int) -> str:
    """Reads every frame of a complete set and returns a summary.

    Raises:
        PrepareError: the set is damaged; the message lists the first ten problems.
        NotPreparedError: the set is incomplete.
        ConfigError: it has more files than a process may open.
    """
    description = array_record.describe(folder)
    open_files.allow(sum(1 for _ in folder.glob("*.array_record-*")), str(folder))
    items, frames = description["items"], description["frames"]
    problems = [
        f"{part}: its index lists {len(index.ids):,} items of {index.count_I.sum():,} frames, {items[part]:,} of "
        f"{frames[part]:,} were written"
        for part, index in ((part, array_record.Index.load(folder / f"index-{part}.npz")) for part in items)
        if (len(index.ids), index.count_I.sum()) != (items[part], frames[part])
    ]
    total = sum(items.values())
    if not problems:
        chunks = [
            _Chunk(str(folder), part, start, min(start + CHUNK_ITEMS, count))
            for part, count in items.items()
            for start in range(0, count, CHUNK_ITEMS)
        ]
        with progress.Progress(total, description["kind"], name="verify") as bar:
            problems = [p for found in parallel.run(_problems, chunks, processes, bar) for p in found]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        shown = f"the first {SHOWN} of {len(problems):,}" if len(problems) > SHOWN else str(len(problems))
        raise PrepareError(f"{folder} is damaged; prepare it again. Problems ({shown}):\n{listed}")
    return f"{folder}: {sum(frames.values()):,} frames of {total:,} {description['kind']} verified; no problems found."


def _problems(chunk: _Chunk, tick: parallel.Tick) -> list[str]:
    folder, part = chunk.folder, chunk.part
    index = array_record.Index.load(pathlib.Path(folder) / f"index-{part}.npz")
    first_records = index.first_records()
    problems = []
    for item in range(chunk.start, chunk.stop):
        count = int(index.count_I[item])
        expected = {"id": names.to_bytes(index.ids[item]), "label": int(index.label_I[item]), "count": count}
        for first in range(0, count, array_record.FRAMES_A_RECORD):
            wanted = expected | {"first": first}
            try:
                with faults.as_decode_error(folder):
                    record = array_record.records(folder, part)[
                        int(first_records[item]) + first // array_record.FRAMES_A_RECORD
                    ]
                    got = {key: record[key] for key in wanted}
                    if got != wanted or len(record["frames"]) != min(array_record.FRAMES_A_RECORD, count - first):
                        raise ValueError(f"holds {len(record['frames'])} frames of {got}, expected {wanted}")
                    for jpeg in record["frames"]:
                        array_record.decode_jpeg(jpeg)
            except faults.DecodeError as error:
                problems.append(f"{part}, {index.ids[item]}, frames from {first}: {error.reason}")
        tick()
    return problems
