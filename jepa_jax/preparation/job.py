"""A preparation from end to end: plan → shards, in parallel → index, TFDS metadata, description."""

import functools
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core import splits as splits_lib

from jepa_jax import progress
from jepa_jax.data import prepared, skipped
from jepa_jax.preparation import frames, parallel, plan, shards
from jepa_jax.preparation.raw import PrepareError, RawSet

LEDGER_FILE = "skipped.jsonl"
VERSION = "1.0.0"


def prepare(raw: RawSet, folder: pathlib.Path, settings: frames.JpegSettings, processes: int) -> str:
    """Writes a prepared set, or what is missing of it, and tells how it compares with the official one.

    Raises:
        PrepareError: a set that cannot be used, a folder that cannot be written or is too small.
    """
    planned = plan.make(raw, folder, settings)
    if plan.begin(planned):
        return f"{folder} is complete already.\n{summary(folder)}"
    with plan.alone(planned):
        _work(planned, processes)
    return summary(folder)


def _work(planned: plan.Plan, processes: int) -> None:
    raw, folder = planned.raw, planned.folder
    all_shards = {part: planned.shards(part) for part in planned.parts}
    todo = [shard for of_part in all_shards.values() for shard in of_part if shards.read_note(shard) is None]
    done = planned.items - sum(len(shard.items) for shard in todo)
    expected = plan.expected_bytes(planned)
    print(
        f"{raw.name}: {planned.items:,} {raw.kind}, {plan.gigabytes(planned.raw_bytes)} as downloaded; expected to "
        f"take {plan.gigabytes(expected)} in {folder}{f' ({done:,} are done)' if done else ''}.",
        flush=True,
    )
    plan.check_room(planned, expected)
    write = functools.partial(shards.write, kind=raw.kind, classes=raw.classes, settings=planned.settings)
    with progress.Progress(planned.items, raw.kind, name=raw.name, done=done) as bar:
        parallel.run(write, todo, processes, bar, done)
    _complete(planned, all_shards)


def _complete(planned: plan.Plan, all_shards: Mapping[str, Sequence[shards.Shard]]) -> None:
    """Everything beside the records; the description last, since with it the set counts as complete."""
    folder, raw = planned.folder, planned.raw
    notes = {part: [_note(shard) for shard in of_part] for part, of_part in all_shards.items()}
    try:
        for part, of_part in notes.items():
            _index(of_part).save(folder / f"index-{part}.npz")
        _write_metadata(planned, notes)
        skips = [*planned.missing, *(skip for of_part in notes.values() for note in of_part for skip in note.skips)]
        shards.write_text(folder / LEDGER_FILE, "".join(json.dumps(skip._asdict()) + "\n" for skip in skips))
        description = {
            "format": prepared.FORMAT,
            "name": raw.name,
            "kind": raw.kind,
            "short_side": planned.settings.short_side,
            "quality": planned.settings.quality,
            "frames_a_record": prepared.FRAMES_A_RECORD,
            "splits": {split: [list(parts) for parts in folds] for split, folds in raw.splits.items()},
            "items": {part: sum(len(note.ids) for note in of_part) for part, of_part in notes.items()},
            "frames": {part: sum(sum(note.count) for note in of_part) for part, of_part in notes.items()},
            "bytes": {part: sum(note.bytes for note in of_part) for part, of_part in notes.items()},
            "raw_bytes": planned.raw_bytes,
            "official": {split: list(counts) for split, counts in raw.official.items()},
            "notes": list(raw.notes),
            "plan": planned.identity(),
            "classes": list(raw.classes),
        }
        shards.write_text(folder / prepared.DESCRIPTION_FILE, json.dumps(description, indent=1, ensure_ascii=False))
        shutil.rmtree(planned.work)
    except OSError as error:
        raise PrepareError(f"{folder} cannot be written: {error.strerror or error}.") from error


def _note(shard: shards.Shard) -> shards.Note:
    note = shards.read_note(shard)
    if note is None:
        raise PrepareError(f"{shard.file} has been changed since it was written; start again to write it anew.")
    return note


def _index(notes: Sequence[shards.Note]) -> prepared.Index:
    return prepared.Index(
        prepared.Strings.of([id for note in notes for id in note.ids]),
        np.array([label for note in notes for label in note.label], np.int32),
        np.array([fps for note in notes for fps in note.fps], np.float64),
        np.array([count for note in notes for count in note.count], np.int32),
        np.array([promised for note in notes for promised in note.promised], np.int32),
    )


def _write_metadata(planned: plan.Plan, notes: Mapping[str, Sequence[shards.Note]]) -> None:
    """dataset_info.json and features.json, with which TFDS opens the folder."""
    raw, folder = planned.raw, planned.folder
    template = tfds.core.ShardedFileTemplate(
        dataset_name=raw.name, data_dir=epath.Path(folder), filetype_suffix="array_record"
    )
    identity = dataset_info.DatasetIdentity(
        name=raw.name, version=tfds.core.Version(VERSION), data_dir=str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=shards.features(raw.classes),
        description=f"Prepared by jepa_jax: JPEG frames, up to {prepared.FRAMES_A_RECORD} a record.",
    )
    splits = [
        tfds.core.SplitInfo(
            name=part,
            shard_lengths=[note.records for note in of_part],
            num_bytes=sum(note.bytes for note in of_part),
            filename_template=template,
        )
        for part, of_part in notes.items()
    ]
    info.set_splits(splits_lib.SplitDict(splits))
    info.set_file_format("array_record")
    info.write_to_directory(folder)


def summary(folder: pathlib.Path) -> str:
    """What a complete set holds, beside the official counts, and what is missing from it."""
    made: dict[str, Any] = prepared.describe(folder)
    size, frame_count = sum(made["bytes"].values()), sum(made["frames"].values())
    lines = [
        f"{made['name']}: {sum(made['items'].values()):,} {made['kind']}, {frame_count:,} frames, "
        f"{len(made['classes'])} classes in {plan.gigabytes(size)} "
        f"({size / max(1, made['raw_bytes']):.1f} times the download)."
    ]
    for split, folds in made["splits"].items():
        for fold, parts in enumerate(folds):
            count = sum(made["items"][part] for part in parts)
            name = f"{split} {fold + 1}" if len(folds) > 1 else split
            lines.append(
                f"  {name}: {count:,}{_beside_official(count, made['official'].get(split, ())[fold : fold + 1])}"
            )
    lines += [f"  {note}" for note in made["notes"]]
    ledger = folder / LEDGER_FILE
    told = [skipped.Skip(**json.loads(line)) for line in ledger.read_text(encoding="utf-8").splitlines()]
    kept = [skip for skip in told if skip.reason.startswith(shards.KEPT)]
    left_out = [skip for skip in told if skip not in kept]
    for skips, what in ((left_out, "could not be prepared"), (kept, "are in the set but look damaged")):
        if skips:
            lines.append(f"  {len(skips):,} {what} ({ledger}){', the first:' if len(skips) > skipped.SHOWN else ':'}")
            lines += [f"    {skip.path}: {skip.reason.removeprefix(shards.KEPT)}" for skip in skips[: skipped.SHOWN]]
    return "\n".join(lines)


def _beside_official(count: int, official: Sequence[int]) -> str:
    if not official:
        return ""
    difference = count - official[0]
    return f" (official: {official[0]:,}{f', {difference:+,}' if difference else ', complete'})"
