"""What a preparation will do, worked out before it starts: the items that are there, their shards, the space needed."""

import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures

from jepa_jax.data import decode, prepared, skipped
from jepa_jax.preparation import frames, shards
from jepa_jax.preparation.raw import Item, PrepareError, RawSet

SAMPLED = 24  # items encoded to see how much space frames take
SHARD_BYTES = 2**17  # of a shard's file beside what it holds: ArrayRecord fills up to whole blocks of 64 KiB
SPARE = 1.05  # of the space expected: a sample is no census


@dataclasses.dataclass(frozen=True)
class Plan:
    """A raw set, and how it is to be written to a folder."""

    raw: RawSet
    settings: frames.JpegSettings
    folder: pathlib.Path
    parts: Mapping[str, Sequence[Item]]  # those of the raw set whose files are there
    missing: Sequence[skipped.Skip]
    file_bytes: Mapping[str, int]  # of each file of theirs

    @property
    def raw_bytes(self) -> int:
        """The space that the raw set takes."""
        return sum(self.file_bytes.values())

    @property
    def work(self) -> pathlib.Path:
        """Where notes and unfinished files lie until the set is complete."""
        return (self.folder / prepared.PLAN_FILE).parent

    @property
    def items(self) -> int:
        """How many items are to be written."""
        return sum(map(len, self.parts.values()))

    def shards(self, part: str) -> list[shards.Shard]:
        """The shards of a part, in order."""
        stretches = list(shards.cut(self.parts[part]))
        names = [
            f"{self.raw.name}-{part}.array_record-{number:05d}-of-{len(stretches):05d}"  # as TFDS expects them
            for number in range(len(stretches))
        ]
        return [
            shards.Shard(part, number, start, items, self.folder / name, self.work / f"{part}-{number:05d}.json")
            for number, (name, (start, items)) in enumerate(zip(names, stretches, strict=True))
        ]

    def identity(self) -> dict[str, object]:
        """What must not change between the start of a preparation and its end."""
        listing = hashlib.sha256()
        for part, items in self.parts.items():
            for item in items:
                listing.update(f"{part}\0{item.id}\0{item.label}\n".encode())
        return {
            "format": prepared.FORMAT,
            "set": self.raw.name,
            "short side": self.settings.short_side,
            "quality": self.settings.quality,
            "classes": len(self.raw.classes),
            "items": {part: len(items) for part, items in self.parts.items()},
            "listing": listing.hexdigest(),
        }


def make(raw: RawSet, folder: pathlib.Path, settings: frames.JpegSettings) -> Plan:
    """Looks which files are there.

    Raises:
        PrepareError: an id twice, or not one file there.
    """
    _refuse_duplicates(raw)
    everything = [item for items in raw.parts.values() for item in items]
    paths = list(dict.fromkeys(item.path for item in everything))
    with futures.ThreadPoolExecutor(16) as threads:  # a network disk answers slowly, but many at once
        sizes = dict(zip(paths, threads.map(_size, paths), strict=True))
    parts, missing = {}, []
    for part, items in raw.parts.items():
        parts[part] = [item for item in items if sizes[item.path] is not None]
        for number, item in enumerate(items):
            if sizes[item.path] is None:
                missing.append(skipped.Skip(part, number, item.path, "listed, but the file is not there"))
    if not any(parts.values()):
        raise PrepareError(
            f"{raw.name}: none of its {len(everything):,} files are there, such as {everything[0].path}."
        )
    return Plan(raw, settings, folder, parts, missing, {path: size for path, size in sizes.items() if size is not None})


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _refuse_duplicates(raw: RawSet) -> None:
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
    """The space that the prepared set will take, from items spread over it that are encoded on trial."""
    items = [item for items in plan.parts.values() for item in items]
    sampled = items[:: max(1, len(items) // SAMPLED)][:SAMPLED]
    in_file = collections.Counter(item.path for item in items)  # images of a parquet file share it
    raw_bytes = jpeg_bytes = 0.0
    for item in sampled:
        try:
            jpegs = frames.of_item(item, plan.raw.kind, plan.settings)
        except decode.DecodeError:
            continue
        jpeg_bytes += sum(map(len, jpegs.frames))
        raw_bytes += plan.file_bytes[item.path] / in_file[item.path]
    if not jpeg_bytes:
        raise PrepareError(f"None of {len(sampled)} items tried can be decoded, such as {sampled[0].path}.")
    return round(plan.raw_bytes * jpeg_bytes / raw_bytes) + SHARD_BYTES * sum(
        len(plan.shards(part)) for part in plan.parts
    )


def check_room(plan: Plan, expected: int) -> None:
    """Refuses to start what cannot be finished.

    Raises:
        PrepareError: less space is free than what is expected beyond what has been written.
    """
    written = sum(file.stat().st_size for file in plan.folder.iterdir() if file.is_file())
    needed, free = max(0, round(expected * SPARE) - written), shutil.disk_usage(plan.folder).free
    if needed > free:
        raise PrepareError(
            f"{plan.folder} has {gigabytes(free)} free; the prepared set is expected to take {gigabytes(needed)} "
            f"{'more' if written else 'there'}. Give --out on a larger disk, or a smaller --short-side or --quality."
        )


def begin(plan: Plan) -> bool:
    """Makes the folders, or finds them as the same plan left them; returns whether the set is complete already.

    Raises:
        PrepareError: the folder cannot be written, or holds something else.
    """
    identity = plan.identity()
    finished, begun = plan.folder / prepared.DESCRIPTION_FILE, plan.folder / prepared.PLAN_FILE
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        for file in (finished, begun):
            if file.is_file():
                known = json.loads(file.read_text(encoding="utf-8"))
                _refuse_other(plan.folder, known["plan"] if file == finished else known, identity)
                return file == finished
        others = [path.name for path in plan.folder.iterdir() if path != plan.work]
        if others:
            raise PrepareError(f"{plan.folder} is not empty (it holds {others[0]!r}); give an empty or a new folder.")
        plan.work.mkdir(exist_ok=True)
        shards.write_text(begun, json.dumps(identity, indent=1))
    except OSError as error:
        raise PrepareError(f"{plan.folder} cannot be written: {error.strerror or error}.") from error
    return False


@contextlib.contextmanager
def alone(plan: Plan) -> Iterator[None]:
    """Keeps a second process off the same folder; a killed one leaves nothing that would.

    Raises:
        PrepareError: another process is at work in it.
    """
    with (plan.work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PrepareError(f"Another process is preparing {plan.folder}; wait for it, or end it.") from error
        yield


def _refuse_other(folder: pathlib.Path, known: Mapping[str, object], identity: Mapping[str, object]) -> None:
    different = [f"{key}: {known.get(key)!r} there, {value!r} now" for key, value in identity.items()]
    different = [line for line, key in zip(different, identity, strict=True) if known.get(key) != identity[key]]
    if different:
        raise PrepareError(
            f"{folder} was prepared from something else ({'; '.join(different)}). Give another --out, or remove it."
        )


def gigabytes(size: int) -> str:
    """`12.3 GB`, or megabytes below one."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
