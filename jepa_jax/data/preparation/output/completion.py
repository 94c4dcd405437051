"""Completion of a prepared set: index, TFDS metadata, ledger of skipped items, description, summary."""

import io
import json
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core import splits as splits_lib

from jepa_jax.data import skipped_files
from jepa_jax.data.preparation import shard_writer
from jepa_jax.data.preparation.output import disk_space, locks, recorded_plan
from jepa_jax.data.preparation.plan import Plan
from jepa_jax.data.preparation.raw import RawSet
from jepa_jax.data.sources import array_record
from jepa_jax.data.sources.strings import Strings
from jepa_jax.files.remote import any_path
from jepa_jax.files.remote.any_path import AnyPath
from jepa_jax.files.remote.remote_path import RemotePath

LEDGER_FILE = "skipped.jsonl"
VERSION = "1.0.0"

Notes = Mapping[str, Sequence[shard_writer.Note]]  # of each part


def missing(planned: Plan) -> list[shard_writer.Shard]:
    """Returns the shards that are not written or are damaged, and removes the notes of damaged ones.

    Raises:
        OSError: a note cannot be removed.
    """
    shards = planned.all_shards()
    with futures.ThreadPoolExecutor(16) as threads:  # a network disk is slow, but serves many requests in parallel
        sound = threads.map(_is_sound, shards)
    return [shard for shard, is_sound in zip(shards, sound, strict=True) if not is_sound]


def _is_sound(shard: shard_writer.Shard) -> bool:
    note = shard_writer.read_note(shard)
    if note is None:
        return False
    # A store keeps what was uploaded. A disk that lost power may not.
    if isinstance(shard.file, RemotePath) or shard_writer.count_records(shard.file) == note.records:
        return True
    shard.note.unlink(missing_ok=True)
    return False


def complete(planned: Plan) -> None:
    """Writes everything except the records; the description last, since it marks the set as complete.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = planned.folder
    notes = _notes(planned)
    assert notes is not None, "complete() needs all shards"
    _remove_stale(planned)
    for part, of_part in notes.items():
        with io.BytesIO() as content:
            _index(of_part).save(content)
            (folder / f"index-{part}.npz").write_bytes(content.getvalue())
    _write_metadata(planned, notes)
    shard_writer.write_text(folder / LEDGER_FILE, _ledger(planned, notes))
    description = json.dumps(_description(planned, notes), indent=1, ensure_ascii=False)
    shard_writer.write_text(folder / array_record.DESCRIPTION_FILE, description)
    recorded_plan.remove(planned)
    any_path.remove_folder(planned.kept_notes)
    any_path.move_folder(planned.work, planned.kept_notes)
    locks.remove_dead(folder)


def is_current(planned: Plan, made: Mapping[str, Any]) -> bool:
    """Whether the description and ledger of a complete set are still correct."""
    notes = _notes(planned)
    if notes is None:
        return False
    ledger = planned.folder / LEDGER_FILE
    return (
        _description(planned, notes) == {"shard_items": dict(planned.shard_items), **made}  # earlier versions lack it
        and ledger.is_file()
        and ledger.read_text(encoding="utf-8") == _ledger(planned, notes)
    )


def _notes(planned: Plan) -> Notes | None:
    """Returns the notes of all shards, None if one is missing."""
    notes = {part: [shard_writer.read_note(shard) for shard in planned.shards(part)] for part in planned.parts}
    found = {part: [note for note in of_part if note is not None] for part, of_part in notes.items()}
    return found if all(len(found[part]) == len(notes[part]) for part in notes) else None


def _remove_stale(planned: Plan) -> None:
    """Removes shards, notes and indices that are not in the plan."""
    kept = {path for shard in planned.all_shards() for path in (shard.file, shard.note)}
    kept |= {planned.folder / f"index-{part}.npz" for part in planned.parts}
    for folder, pattern in (
        (planned.folder, f"{planned.raw.name}-*.array_record-*"),
        (planned.folder, "index-*.npz"),
        (planned.work, "*-[0-9]*.*"),
    ):
        for file in set(folder.glob(pattern)) - kept:
            file.unlink()


def _ledger(planned: Plan, notes: Notes) -> str:
    skips = [*planned.missing, *(skip for of_part in notes.values() for note in of_part for skip in note.skips)]
    return "".join(json.dumps(skip._asdict()) + "\n" for skip in skips)


def _description(planned: Plan, notes: Notes) -> dict[str, Any]:
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
        "shard_items": dict(planned.shard_items),
        "classes": list(raw.classes),
    }


def _index(notes: Sequence[shard_writer.Note]) -> array_record.Index:
    return array_record.Index(
        Strings.of([id for note in notes for id in note.ids]),
        np.array([label for note in notes for label in note.label], np.int32),
        np.array([fps for note in notes for fps in note.fps], np.float64),
        np.array([count for note in notes for count in note.count], np.int32),
        np.array([count for note in notes for count in note.promised], np.int32),
    )


def _write_metadata(planned: Plan, notes: Notes) -> None:
    """Writes dataset_info.json and features.json, from which TFDS opens the folder."""
    raw = planned.raw
    with tempfile.TemporaryDirectory() as local:
        _write_info(raw, notes, pathlib.Path(local))
        for file in sorted(pathlib.Path(local).iterdir()):
            (planned.folder / file.name).write_bytes(file.read_bytes())


def _write_info(raw: RawSet, notes: Notes, folder: pathlib.Path) -> None:
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


def summary(folder: AnyPath) -> str:
    """Summarizes a complete set: counts next to the official ones, and skipped items."""
    made: dict[str, Any] = array_record.describe(folder)
    size, frame_count = sum(made["bytes"].values()), sum(made["frames"].values())
    lines = [
        f"{made['name']}: {sum(made['items'].values()):,} {made['kind']}, {frame_count:,} frames, "
        f"{len(made['classes'])} classes in {disk_space.gigabytes(size)} "
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
