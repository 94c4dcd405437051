"""End-to-end dataset preparation: plan → shards, in parallel → index, TFDS metadata, description."""

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
from jepa_jax.data import skipped_files
from jepa_jax.data.preparation import frames, outdated, parallel, plan, shard_writer
from jepa_jax.data.preparation.raw import PrepareError, RawSet
from jepa_jax.data.sources import array_record
from jepa_jax.data.sources.strings import Strings

LEDGER_FILE = "skipped.jsonl"
VERSION = "1.0.0"


def prepare(
    raw: RawSet, folder: pathlib.Path, settings: frames.JpegSettings, processes: int, *, update: bool = False
) -> str:
    """Writes the missing and outdated shards of a prepared set and returns its summary.

    Added and repaired files and changed labels are picked up automatically. If items of a complete set have changed or
    been removed, `update` is required.

    Raises:
        PrepareError: the raw set is invalid, the folder is not writable or too small, or `update` is required.
    """
    planned = plan.make(raw, folder, settings)
    if (folder / array_record.DESCRIPTION_FILE).is_file() and _outdated(planned, plan.begin(planned), update) is None:
        return _complete_already(planned)  # nothing was written, so the folder may be read-only
    with plan.locked(planned):
        made = plan.begin(planned)
        found = _outdated(planned, made, update)
        if found is None:  # another process has just finished it
            return _complete_already(planned)
        if made is not None:
            print(f"Updating {folder}: {found}.", flush=True)
        plan.open_notes(planned)
        _work(planned, processes)
    return summary(folder)


def _outdated(planned: plan.Plan, made: Mapping[str, Any] | None, update: bool) -> str | None:
    """Describes what is outdated in the folder; None if its set is complete and up to date.

    Raises:
        PrepareError: `update` is required.
    """
    if made is not None and not _has_notes(planned):
        found = _changes_of_older_set(planned, made)
        if found and not update:
            raise PrepareError(
                f"{planned.folder} is out of date ({found}), and was prepared by an earlier version. Run the same "
                "command with --update to rewrite all of it, or choose another --out."
            )
        return found or None
    found = outdated.find(planned)
    if found.lossy and not update:
        raise PrepareError(_out_of_date(planned, made, found))
    return None if made is not None and not found.any and _is_current(planned, made) else str(found)


def _has_notes(planned: plan.Plan) -> bool:
    return bool(list(planned.notes.glob("*-[0-9]*.json")))


def _complete_already(planned: plan.Plan) -> str:
    limitation = "prepared by an earlier version: added files with an older date are not detected"
    remark = "" if _has_notes(planned) else f" ({limitation})"
    return f"{planned.folder} is already complete{remark}.\n{summary(planned.folder)}"


def _changes_of_older_set(planned: plan.Plan, made: Mapping[str, Any]) -> str:
    finished = planned.folder / array_record.DESCRIPTION_FILE
    return outdated.changes_without_notes(planned, finished.stat().st_mtime_ns, made["plan"])


def _out_of_date(planned: plan.Plan, made: Mapping[str, Any] | None, found: outdated.Changes) -> str:
    todo = sum(shard_writer.read_note(shard) is None for part in planned.parts for shard in planned.shards(part))
    total = sum(len(planned.shards(part)) for part in planned.parts)
    before, now = made and made["plan"]["items"], planned.identity()["items"]
    counts = f" (items: {before} before, {now} now)" if before and before != now else ""
    return (
        f"{planned.folder} is out of date{counts}: {found}. A file counts as changed if its size or modification time "
        f"differs. Run the same command with --update to rewrite {todo} of {total} shards, or choose another --out."
    )


def _is_current(planned: plan.Plan, made: Mapping[str, Any]) -> bool:
    """Whether the description and ledger of a complete set are still correct."""
    notes = {part: [shard_writer.read_note(shard) for shard in planned.shards(part)] for part in planned.parts}
    done = {part: [note for note in of_part if note is not None] for part, of_part in notes.items()}
    if any(len(done[part]) < len(notes[part]) for part in notes):
        return False
    ledger = planned.folder / LEDGER_FILE
    return (
        _description(planned, done) == made
        and ledger.is_file()
        and ledger.read_text(encoding="utf-8") == _ledger(planned, done)
    )


def _work(planned: plan.Plan, processes: int) -> None:
    raw, folder = planned.raw, planned.folder
    all_shards = {part: planned.shards(part) for part in planned.parts}
    every_shard = [shard for of_part in all_shards.values() for shard in of_part]
    todo = [shard for shard in every_shard if shard_writer.read_note(shard) is None]
    done = planned.items - sum(len(shard.items) for shard in todo)
    if todo:
        expected = plan.expected_bytes(planned)
        print(
            f"{raw.name}: {planned.items:,} {raw.kind}, {plan.gigabytes(planned.raw_bytes)} as downloaded; expected "
            f"size {plan.gigabytes(expected)} in {folder}{f' ({done:,} done)' if done else ''}.",
            flush=True,
        )
        plan.check_free_space(planned, expected)
    _start(planned, every_shard)
    write = functools.partial(shard_writer.write, kind=raw.kind, classes=raw.classes, settings=planned.settings)
    with progress.Progress(planned.items, raw.kind, name=raw.name, done=done) as bar:
        parallel.run(write, todo, processes, bar, done)
    _complete(planned, all_shards)


def _start(planned: plan.Plan, every_shard: Sequence[shard_writer.Shard]) -> None:
    try:
        plan.record(planned)
        for shard in every_shard:
            if (note := shard_writer.read_note(shard)) is not None:
                shard_writer.adopt(shard, note)
    except OSError as error:
        raise PrepareError(f"{planned.folder} cannot be written: {error.strerror or error}.") from error


def _complete(planned: plan.Plan, all_shards: Mapping[str, Sequence[shard_writer.Shard]]) -> None:
    """Writes everything except the records; the description last, since it marks the set as complete."""
    folder = planned.folder
    notes = {part: [_note(shard) for shard in of_part] for part, of_part in all_shards.items()}
    try:
        _remove_stale(planned, [shard for of_part in all_shards.values() for shard in of_part])
        for part, of_part in notes.items():
            _index(of_part).save(folder / f"index-{part}.npz")
        _write_metadata(planned, notes)
        shard_writer.write_text(folder / LEDGER_FILE, _ledger(planned, notes))
        description = json.dumps(_description(planned, notes), indent=1, ensure_ascii=False)
        shard_writer.write_text(folder / array_record.DESCRIPTION_FILE, description)
        (folder / array_record.PLAN_FILE).unlink()
        shutil.rmtree(planned.kept_notes, ignore_errors=True)
        planned.work.rename(planned.kept_notes)
    except OSError as error:
        raise PrepareError(f"{folder} cannot be written: {error.strerror or error}.") from error


def _remove_stale(planned: plan.Plan, every_shard: Sequence[shard_writer.Shard]) -> None:
    """Removes shards, notes and indices that are not in the plan."""
    kept = {path for shard in every_shard for path in (shard.file, shard.note)}
    kept |= {planned.folder / f"index-{part}.npz" for part in planned.parts}
    for folder, pattern in (
        (planned.folder, f"{planned.raw.name}-*.array_record-*"),
        (planned.folder, "index-*.npz"),
        (planned.work, "*-[0-9]*.*"),
    ):
        for file in set(folder.glob(pattern)) - kept:
            file.unlink()


def _ledger(planned: plan.Plan, notes: Mapping[str, Sequence[shard_writer.Note]]) -> str:
    skips = [*planned.missing, *(skip for of_part in notes.values() for note in of_part for skip in note.skips)]
    return "".join(json.dumps(skip._asdict()) + "\n" for skip in skips)


def _description(planned: plan.Plan, notes: Mapping[str, Sequence[shard_writer.Note]]) -> dict[str, Any]:
    raw = planned.raw
    return {
        "format": array_record.FORMAT,
        "name": raw.name,
        "kind": raw.kind,
        "short_side": planned.settings.short_side,
        "quality": planned.settings.quality,
        "frames_a_record": array_record.FRAMES_A_RECORD,
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


def _note(shard: shard_writer.Shard) -> shard_writer.Note:
    note = shard_writer.read_note(shard)
    if note is None:
        raise PrepareError(f"{shard.file} has changed since it was written; run the same command again to rewrite it.")
    return note


def _index(notes: Sequence[shard_writer.Note]) -> array_record.Index:
    return array_record.Index(
        Strings.of([id for note in notes for id in note.ids]),
        np.array([label for note in notes for label in note.label], np.int32),
        np.array([fps for note in notes for fps in note.fps], np.float64),
        np.array([count for note in notes for count in note.count], np.int32),
        np.array([count for note in notes for count in note.promised], np.int32),
    )


def _write_metadata(planned: plan.Plan, notes: Mapping[str, Sequence[shard_writer.Note]]) -> None:
    """Writes dataset_info.json and features.json, from which TFDS opens the folder."""
    raw, folder = planned.raw, planned.folder
    template = tfds.core.ShardedFileTemplate(
        dataset_name=raw.name, data_dir=epath.Path(folder), filetype_suffix="array_record"
    )
    identity = dataset_info.DatasetIdentity(
        name=raw.name, version=tfds.core.Version(VERSION), data_dir=str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=shard_writer.features(raw.classes),
        description=f"Prepared by jepa_jax: JPEG frames, up to {array_record.FRAMES_A_RECORD} per record.",
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
    """Summarizes a complete set: counts next to the official ones, and skipped items."""
    made: dict[str, Any] = array_record.describe(folder)
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
    listed = [skipped_files.Skip(**json.loads(line)) for line in ledger.read_bytes().splitlines()]
    kept = [skip for skip in listed if skip.reason.startswith(shard_writer.KEPT)]
    left_out = [skip for skip in listed if skip not in kept]
    for skips, what in ((left_out, "could not be prepared"), (kept, "are in the set but look damaged")):
        if skips:
            lines.append(
                f"  {len(skips):,} {what} ({ledger}){', the first:' if len(skips) > skipped_files.SHOWN else ':'}"
            )
            shown = [
                skip._replace(reason=skip.reason.removeprefix(shard_writer.KEPT))
                for skip in skips[: skipped_files.SHOWN]
            ]
            lines += [f"    {skip}" for skip in shown]
    return "\n".join(lines)


def _beside_official(count: int, official: Sequence[int]) -> str:
    if not official:
        return ""
    difference = count - official[0]
    return f" (official: {official[0]:,}{f', {difference:+,}' if difference else ', complete'})"
