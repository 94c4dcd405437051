"""The plan that is recorded in an output folder, so that several jobs follow the same one.

    preparing/plan.json    identity of the plan, items a shard, number of parts; exists until the set is complete
    preparing/items.json   id, label, size and modification time of every planned item

A complete set has the plan in prepared.json instead.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from jepa_jax.data.listing import names
from jepa_jax.data.preparation import outdated, shard_writer
from jepa_jax.data.preparation.output import locks
from jepa_jax.data.preparation.plan import Plan, items_per_shard
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.preparation.share import Share
from jepa_jax.data.sources import array_record
from jepa_jax.files.remote import any_path
from jepa_jax.files.remote.remote_path import RemotePath

ITEMS_FILE = "items.json"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a folder holds.

    Attributes:
        identity: see `Plan.identity`.
        shard_items: items a shard, for each part.
        share_count: number of shares that the shards were divided into last.
        description: of a complete set, None before.
    """

    identity: Mapping[str, Any]
    shard_items: Mapping[str, int]
    share_count: int
    description: Mapping[str, Any] | None


def read(plan: Plan) -> Recorded | None:
    """Returns the plan recorded in the folder, None if it is empty or does not exist.

    Raises:
        PrepareError: the folder has another set, was prepared with other settings, or contains something else.
        OSError: the folder cannot be read.
    """
    if not names.is_utf8(os.path.abspath(str(plan.folder))):
        raise PrepareError(f"--out={plan.folder} is not UTF-8, which prepared sets require; choose another folder.")
    finished, begun = plan.folder / array_record.DESCRIPTION_FILE, plan.folder / array_record.PLAN_FILE
    if finished.is_file():
        known = json.loads(finished.read_text(encoding="utf-8"))
        found = Recorded(known["plan"], _shard_items(known["plan"], known.get("shard_items")), 1, known)
    elif begun.is_file():
        known = json.loads(begun.read_text(encoding="utf-8"))
        sizes, count = known.pop("items a shard", None), known.pop("shares", 1)
        found = Recorded(known, _shard_items(known, sizes), count, None)
    else:
        _refuse_nonempty(plan)
        return None
    _refuse_other(plan, found.identity)
    return found


def _shard_items(identity: Mapping[str, Any], recorded: Mapping[str, int] | None) -> Mapping[str, int]:
    """Earlier versions recorded no items a shard; they followed from the number of items."""
    return recorded or {part: items_per_shard(count) for part, count in identity["items"].items()}


def difference(plan: Plan, recorded: Recorded) -> str:
    """Describes how a plan differs from that of an unfinished folder; '' if they are equal."""
    try:
        content = json.loads((plan.work / ITEMS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it was planned by an earlier version, which did not record the items"
    stamps = {part: [shard_writer.Stamp(*stamp) for stamp in of_part] for part, of_part in content.items()}
    if recorded.identity == plan.identity() and stamps == {part: plan.stamps(part) for part in plan.parts}:
        return ""
    known = {(part, stamp.id): (stamp, True) for part, of_part in stamps.items() for stamp in of_part}
    return str(outdated.compare(plan, known)) or "the same items are listed in another order"


def record(plan: Plan, share: Share) -> None:
    """Writes the plan to the folder and removes the description, which marks the set as incomplete.

    Raises:
        OSError: the folder cannot be written.
    """
    plan.work.mkdir(exist_ok=True)
    items = {part: plan.stamps(part) for part in plan.parts}
    shard_writer.write_text(plan.work / ITEMS_FILE, json.dumps(items))
    record_share_count(plan, share)
    (plan.folder / array_record.DESCRIPTION_FILE).unlink(missing_ok=True)


def record_share_count(plan: Plan, share: Share) -> None:
    """Writes the plan to the folder, except for its items.

    Raises:
        OSError: the folder cannot be written.
    """
    content = plan.identity() | {"items a shard": dict(plan.shard_items), "shares": share.count}
    shard_writer.write_text(plan.folder / array_record.PLAN_FILE, json.dumps(content, indent=1))


def open_notes(plan: Plan) -> None:
    """Creates the folder of notes, or moves that of a complete set back for an update.

    Raises:
        OSError: the folder cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        if isinstance(plan.folder, RemotePath) or not plan.work.is_dir():
            any_path.move_folder(plan.kept_notes, plan.work)
    plan.work.mkdir(exist_ok=True)


def remove(plan: Plan) -> None:
    """Removes the plan, once the description has replaced it.

    Raises:
        OSError: the folder cannot be written.
    """
    (plan.folder / array_record.PLAN_FILE).unlink()
    (plan.work / ITEMS_FILE).unlink(missing_ok=True)


def _refuse_nonempty(plan: Plan) -> None:
    if plan.folder.is_dir():
        others = [
            path.name for path in plan.folder.iterdir() if path.name != plan.work.name and not path.match(locks.PATTERN)
        ]
        if others:
            raise PrepareError(
                f"{plan.folder} is not empty (it contains {others[0]!r}); choose an empty or new folder."
            )


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
