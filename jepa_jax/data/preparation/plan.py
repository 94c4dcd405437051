"""Planning of a preparation: the existing items, their shards and the required disk space."""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

from jepa_jax.data import faults, skipped_files
from jepa_jax.data.listing import names, walk
from jepa_jax.data.preparation import frames, shard_writer
from jepa_jax.data.preparation.raw import Item, PrepareError, RawSet
from jepa_jax.data.sources import array_record
from jepa_jax.files import ownership

SAMPLE_ITEMS = 24  # items encoded to estimate the size of the prepared set
SHARD_BYTES = 2**17  # overhead per shard: ArrayRecord pads to blocks of 64 KiB
MARGIN = 1.05  # factor on the expected size, which is an estimate

LOCK = "lock.json"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A raw set and how it will be written to a folder."""

    raw: RawSet
    settings: frames.JpegSettings
    folder: pathlib.Path
    parts: Mapping[str, Sequence[Item]]  # the items of the raw set whose files exist
    missing: Sequence[skipped_files.Skip]
    files: Mapping[str, tuple[int, int]]  # size and modification time (ns) of each of their files

    @property
    def raw_bytes(self) -> int:
        """Size of the raw set."""
        return sum(size for size, _ in self.files.values())

    @property
    def work(self) -> pathlib.Path:
        """Folder of notes and unfinished files until the set is complete."""
        return (self.folder / array_record.PLAN_FILE).parent

    @property
    def kept_notes(self) -> pathlib.Path:
        """Folder of the notes once the set is complete."""
        return self.folder / "notes"

    @property
    def notes(self) -> pathlib.Path:
        """Current folder of the notes."""
        return self.work if self.work.is_dir() else self.kept_notes

    @property
    def items(self) -> int:
        """Number of items to write."""
        return sum(map(len, self.parts.values()))

    def stamps(self, part: str) -> list[shard_writer.Stamp]:
        """The current state of the items of a part."""
        return [shard_writer.Stamp(item.id, item.label, *self.files[item.path]) for item in self.parts[part]]

    def shards(self, part: str) -> list[shard_writer.Shard]:
        """The shards of a part, in order."""
        ranges, stamps, notes = list(shard_writer.cut(self.parts[part])), self.stamps(part), self.notes
        file_names = [
            f"{self.raw.name}-{part}.array_record-{number:05d}-of-{len(ranges):05d}"  # as TFDS expects them
            for number in range(len(ranges))
        ]
        return [
            shard_writer.Shard(
                part,
                number,
                start,
                items,
                stamps[start : start + len(items)],
                self.folder / name,
                notes / f"{part}-{number:05d}.json",
            )
            for number, (name, (start, items)) in enumerate(zip(file_names, ranges, strict=True))
        ]

    def identity(self) -> dict[str, object]:
        """Identifies the inputs and settings of the set."""
        digest = hashlib.sha256()
        for part, items in self.parts.items():
            for item in items:
                digest.update(names.to_bytes(f"{part}\0{item.id}\0{item.label}\n"))
        return {
            "format": array_record.FORMAT,
            "set": self.raw.name,
            "short side": self.settings.short_side,
            "quality": self.settings.quality,
            "classes": len(self.raw.classes),
            "items": {part: len(items) for part, items in self.parts.items()},
            "listing": digest.hexdigest(),
        }


def make(raw: RawSet, folder: pathlib.Path, settings: frames.JpegSettings) -> Plan:
    """Creates a plan from the files that exist.

    Raises:
        PrepareError: an id or class is listed twice, or none of the files exists.
    """
    _refuse_duplicates(raw)
    everything = [item for items in raw.parts.values() for item in items]
    paths = list(dict.fromkeys(item.path for item in everything))
    with futures.ThreadPoolExecutor(16) as threads:  # a network disk is slow, but serves many requests in parallel
        found = dict(zip(paths, threads.map(_stat, paths), strict=True))
    files = {path: state for path, state in found.items() if not isinstance(state, str)}
    parts, missing = {}, list(raw.skips)
    for part, items in raw.parts.items():
        parts[part] = [item for item in items if item.path in files]
        for number, item in enumerate(items):
            if item.path not in files:
                missing.append(skipped_files.Skip(part, number, item.path, str(found[item.path])))
    if not any(parts.values()):
        first = everything[0].path
        raise PrepareError(
            f"{raw.name}: none of its {len(everything):,} files can be read, such as {first} ({found[first]})."
        )
    return Plan(raw, settings, folder, parts, missing, files)


def _stat(path: str) -> tuple[int, int] | str:
    """Returns size in bytes and modification time in ns of a file, or the reason why it cannot be read."""
    if reason := walk.fault(path):
        return reason
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _refuse_duplicates(raw: RawSet) -> None:
    twice = [name for name, count in collections.Counter(raw.classes).items() if count > 1]
    if twice:
        raise PrepareError(f"{raw.name}: the class {twice[0]!r} is listed twice; each class needs a name of its own.")
    seen: dict[str, tuple[str, Item]] = {}
    for part, items in raw.parts.items():
        for item in items:
            if item.id in seen:
                other_part, other = seen[item.id]
                raise PrepareError(
                    f"{raw.name}: the id {item.id!r} is listed twice: in {other_part} (label {other.label}, "
                    f"{other.path}) and in {part} (label {item.label}, {item.path})."
                )
            seen[item.id] = part, item


def expected_bytes(plan: Plan) -> int:
    """Estimates the size of the prepared set by encoding an evenly spaced sample of items."""
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
    return round(plan.raw_bytes * jpeg_bytes / raw_bytes) + SHARD_BYTES * sum(
        len(plan.shards(part)) for part in plan.parts
    )


def check_free_space(plan: Plan, expected: int) -> None:
    """Checks that the rest of the prepared set will fit on the disk.

    Raises:
        PrepareError: there is not enough free space.
    """
    written = sum(file.stat().st_size for file in plan.folder.iterdir() if file.is_file())
    needed, free = max(0, round(expected * MARGIN) - written), shutil.disk_usage(plan.folder).free
    if needed > free:
        raise PrepareError(
            f"{plan.folder} has {gigabytes(free)} free; the prepared set is expected to take {gigabytes(needed)} "
            f"{'more' if written else 'there'}. Choose --out on a larger disk, or a smaller --short-side or --quality."
        )


def begin(plan: Plan) -> dict[str, Any] | None:
    """Creates the folders or resumes an earlier preparation; returns the description if the set is complete.

    Raises:
        PrepareError: the folder cannot be written, or contains something else.
    """
    if not names.is_utf8(os.path.abspath(plan.folder)):
        raise PrepareError(f"--out={plan.folder} is not UTF-8, which prepared sets require; choose another folder.")
    finished, begun = plan.folder / array_record.DESCRIPTION_FILE, plan.folder / array_record.PLAN_FILE
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        for file in (finished, begun):
            if file.is_file():
                known = json.loads(file.read_text(encoding="utf-8"))
                _refuse_other(plan, known["plan"] if file == finished else known)
                return known if file == finished else None
        others = [path.name for path in plan.folder.iterdir() if path.name not in (plan.work.name, LOCK)]
        if others:
            raise PrepareError(
                f"{plan.folder} is not empty (it contains {others[0]!r}); choose an empty or new folder."
            )
        record(plan)
    except OSError as error:
        raise PrepareError(f"{plan.folder} cannot be written: {error.strerror or error}.") from error
    return None


def record(plan: Plan) -> None:
    """Writes the plan to the folder and removes the description, which marks the set as incomplete.

    Raises:
        OSError: the folder cannot be written.
    """
    plan.work.mkdir(exist_ok=True)
    shard_writer.write_text(plan.folder / array_record.PLAN_FILE, json.dumps(plan.identity(), indent=1))
    (plan.folder / array_record.DESCRIPTION_FILE).unlink(missing_ok=True)


def open_notes(plan: Plan) -> None:
    """Creates the folder of notes, or moves that of a complete set back for an update.

    Raises:
        PrepareError: the folder cannot be written.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            if not plan.work.is_dir():
                plan.kept_notes.rename(plan.work)
        plan.work.mkdir(exist_ok=True)
    except OSError as error:
        raise PrepareError(f"{plan.folder} cannot be written: {error.strerror or error}.") from error


@contextlib.contextmanager
def locked(plan: Plan) -> Iterator[None]:
    """Locks the folder against other processes, on any machine; takes over the lock of a killed process.

    Raises:
        PrepareError: another process is using the folder, or it cannot be written.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        lock = ownership.acquire(plan.folder / LOCK, f"Another process is preparing {plan.folder}: it")
    except ownership.OwnershipError as error:
        raise PrepareError(str(error)) from error
    except OSError as error:
        raise PrepareError(f"{plan.folder} cannot be written: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


def _refuse_other(plan: Plan, known: Mapping[str, object]) -> None:
    identity = plan.identity()
    settings = ("format", "set", "short side", "quality")
    different = [
        f"{key}: {known.get(key)!r} before, {identity[key]!r} now"
        for key in settings
        if known.get(key) != identity[key]
    ]
    if different:
        raise PrepareError(
            f"{plan.folder} was prepared with other settings ({'; '.join(different)}). Choose another --out, or remove "
            "the folder."
        )


def gigabytes(size: int) -> str:
    """Formats a size as `12.3 GB`, or in megabytes below 1 GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
