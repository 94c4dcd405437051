"""Planning of a preparation: the existing items and their shards."""

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent import futures

from jepa_jax.data import skipped_files
from jepa_jax.data.listing import names, walk
from jepa_jax.data.preparation import frames, shard_writer
from jepa_jax.data.preparation.raw import Item, PrepareError, RawSet
from jepa_jax.data.sources import array_record
from jepa_jax.files.remote.any_path import AnyPath
from jepa_jax.files.remote.remote_path import RemotePath

MAX_SHARD_BYTES = 10**9  # about; bounds the work that a killed worker loses
SHARDS = 256  # of a part with enough items, so that many processes can write; more if these exceed MAX_SHARD_BYTES
MIN_SHARD_ITEMS = 64  # in parts with fewer items than 64 · 256, unless these exceed MAX_SHARD_BYTES


@dataclasses.dataclass(frozen=True)
class Plan:
    """A raw set and how it will be written to a folder."""

    raw: RawSet
    settings: frames.JpegSettings
    folder: AnyPath
    parts: Mapping[str, Sequence[Item]]  # the items of the raw set whose files exist
    missing: Sequence[skipped_files.Skip]
    files: Mapping[str, tuple[int, int]]  # size and modification time (ns) of each of their files
    shard_items: Mapping[str, int]  # items a shard, for each part

    @property
    def raw_bytes(self) -> int:
        """Size of the raw set."""
        return sum(size for size, _ in self.files.values())

    @property
    def work(self) -> AnyPath:
        """Folder of notes and unfinished files until the set is complete."""
        return (self.folder / array_record.PLAN_FILE).parent

    @property
    def kept_notes(self) -> AnyPath:
        """Folder of the notes once the set is complete."""
        return self.folder / "notes"

    @property
    def notes(self) -> AnyPath:
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
        items, size = self.parts[part], self.shard_items[part]
        ranges = [(start, items[start : start + size]) for start in range(0, len(items), size)]
        stamps, notes = self.stamps(part), self.notes
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

    def all_shards(self) -> list[shard_writer.Shard]:
        """The shards of all parts, in order."""
        return [shard for part in self.parts for shard in self.shards(part)]

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


def make(raw: RawSet, folder: AnyPath, settings: frames.JpegSettings) -> Plan:
    """Creates a plan from the files that exist. Its shards are cut by the number of items; see `with_shards_of`.

    Raises:
        PrepareError: an id or class is listed twice, or none of the files exists.
    """
    _refuse_duplicates(raw)
    everything = [item for items in raw.parts.values() for item in items]
    paths = list(dict.fromkeys(item.path for item in everything))
    with futures.ThreadPoolExecutor(16) as threads:  # a network disk is slow, but serves many requests in parallel
        found = dict(zip(paths, threads.map(functools.partial(_stat, raw.remote), paths), strict=True))
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
    shard_items = {part: items_per_shard(len(items)) for part, items in parts.items()}
    return Plan(raw, settings, folder, parts, missing, files, shard_items)


def items_per_shard(count: int, item_bytes: float = 0.0) -> int:
    """Items in each shard of a part with `count` items of `item_bytes` on average."""
    by_count = max(MIN_SHARD_ITEMS, -(-count // SHARDS))
    return max(1, int(min(by_count, MAX_SHARD_BYTES / item_bytes))) if item_bytes else by_count


def with_shards_of(plan: Plan, encoded_bytes: float, recorded: Mapping[str, int]) -> Plan:
    """Returns the plan with shards of at most about 1 GB, given the size of all its JPEG frames.

    Parts in `recorded`, the items a shard of an earlier plan, keep their size: otherwise added items would move others
    to another shard.
    """
    item_bytes = encoded_bytes / plan.items
    sizes = {part: items_per_shard(len(items), item_bytes) for part, items in plan.parts.items()}
    return with_shard_items(plan, sizes | dict(recorded))


def with_shard_items(plan: Plan, sizes: Mapping[str, int]) -> Plan:
    """Returns the plan with other items a shard; parts that `sizes` lacks keep theirs."""
    known = {part: sizes[part] for part in plan.parts if part in sizes}
    return dataclasses.replace(plan, shard_items={**plan.shard_items, **known})


def _stat(remote: RemotePath | None, path: str) -> tuple[int, int] | str:
    """Returns size in bytes and modification time in ns of a file, or the reason why it cannot be read."""
    if remote is not None:
        return remote.state_of(path) or "listed, but the file is not there"
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
