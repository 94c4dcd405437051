"""Differences between a raw set and the inputs of a prepared set, found from the notes of its shards."""

import dataclasses
from collections.abc import Iterator, Mapping

from jepa_jax.data.preparation import shard_writer
from jepa_jax.data.preparation.plan import Plan

SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Changes:
    """Names of the items that changed since the shards were written, by kind of change."""

    added: list[str]
    repaired: list[str]  # undecodable files whose size or modification time has changed
    relabelled: list[str]
    changed: list[str]  # other files whose size or modification time has changed
    removed: list[str]

    @property
    def any(self) -> bool:
        """Whether there are any changes."""
        return any(vars(self).values())

    @property
    def lossy(self) -> bool:
        """Whether items of the prepared set would be replaced or dropped."""
        return bool(self.changed or self.removed)

    def __str__(self) -> str:
        return "; ".join(
            f"{len(items):,} {what}: {', '.join(items[:SHOWN])}{', …' if len(items) > SHOWN else ''}"
            for what, items in vars(self).items()
            if items
        )


def find(plan: Plan) -> Changes:
    """Compares a plan with the notes in its folder; an item without a note counts as added."""
    return compare(plan, dict(_known(plan)))


def compare(plan: Plan, known: Mapping[tuple[str, str], tuple[shard_writer.Stamp, bool]]) -> Changes:
    """Compares a plan with known items: (part, id) → the item's stamp and whether it could be decoded."""
    changes = Changes([], [], [], [], [])
    planned = {(part, stamp.id): stamp for part in plan.parts for stamp in plan.stamps(part)}
    for key, stamp in planned.items():
        if key not in known:
            changes.added.append(stamp.id)
            continue
        before, decoded = known[key]
        if stamp[2:] != before[2:]:
            (changes.changed if decoded else changes.repaired).append(stamp.id)
        elif stamp != before:
            changes.relabelled.append(stamp.id)
    changes.removed.extend(id for part, id in known if (part, id) not in planned)
    return changes


def _known(plan: Plan) -> Iterator[tuple[tuple[str, str], tuple[shard_writer.Stamp, bool]]]:
    """Yields (part, id), then the stamp of each item in a note and whether the item could be decoded.

    After an interrupted update, an old and a new note may both list an item. Notes in the plan take precedence.
    """
    current = {
        shard.note for part in plan.parts for shard in plan.shards(part) if shard_writer.read_note(shard) is not None
    }
    files = plan.notes.glob("*-[0-9]*.json")
    for file in sorted(files, key=lambda file: (file in current, file)):
        if (note := shard_writer.load_note(file)) is not None:
            decoded = set(note.ids)
            for stamp in note.stamps:
                yield (file.stem.rpartition("-")[0], stamp.id), (stamp, stamp.id in decoded)


def changes_without_notes(plan: Plan, finished_ns: int, known: Mapping[str, object]) -> str:
    """Describes the changes of a set without notes, from its description and modification times; '' for none."""
    now = plan.identity()
    different = [f"{key}: {known.get(key)!r} before, {now[key]!r} now" for key in now if known.get(key) != now[key]]
    newer = [stamp.id for part in plan.parts for stamp in plan.stamps(part) if stamp.modified_ns > finished_ns]
    if newer:
        different.append(f"{len(newer):,} modified since: {', '.join(newer[:SHOWN])}{', …' * (len(newer) > SHOWN)}")
    return "; ".join(different)
