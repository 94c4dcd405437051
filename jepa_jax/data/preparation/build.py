"""End-to-end dataset preparation: plan → shards, in parallel → index, TFDS metadata, description.

A job writes one share of the shards, by default all of them. The job that finds all shards written completes the set.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jepa_jax import progress
from jepa_jax.data.preparation import frames, outdated, plan, shard_writer
from jepa_jax.data.preparation.output import completion, disk_space, locks, recorded_plan
from jepa_jax.data.preparation.raw import PrepareError, RawSet
from jepa_jax.data.preparation.runners import parallel, ray_tasks
from jepa_jax.data.preparation.share import WHOLE, Share
from jepa_jax.data.sources import array_record
from jepa_jax.files import ownership
from jepa_jax.files.remote import any_path
from jepa_jax.files.remote.any_path import AnyPath
from jepa_jax.files.remote.connection import RemoteError

SHOWN = 3


def prepare(
    raw: RawSet,
    folder: AnyPath,
    settings: frames.JpegSettings,
    processes: int,
    *,
    update: bool = False,
    share: Share = WHOLE,
    ray: str | None = None,
) -> str:
    """Writes the missing and outdated shards of a share. Returns the summary of the set, or what is left to write.

    Added and repaired files and changed labels are picked up automatically. If items of a complete set have changed or
    been removed, or if the files differ from those planned by another share, `update` is required.

    With `ray`, the address of a Ray cluster, the shards are written there instead of by `processes` on this machine.

    Raises:
        PrepareError: the raw set is invalid, the folder is not writable or too small, another job is writing the same
            shards, or `update` is required.
    """
    planned = plan.make(raw, folder, settings)
    with _writing(folder):
        any_path.refresh(folder, locks.PLAN_AND_NOTES)
        recorded = recorded_plan.read(planned)
        if recorded is not None and recorded.description is not None:
            planned = plan.with_shard_items(planned, recorded.shard_items)
            if _outdated(planned, recorded.description, update) is None:
                return _complete_already(planned)  # nothing was written, so the folder may be read-only
    with contextlib.ExitStack() as held:
        with _writing(folder), locks.of_folder(folder):
            lock = held.enter_context(locks.of_share(folder, share))
            begun = _begin(planned, share, update)
        if begun is None:  # another process has just finished it
            return _complete_already(planned)
        _write(begun, share, processes, ray)
        with _writing(folder), locks.of_folder(folder):
            return _end(begun, share, lock)


def finish(raw: RawSet, folder: AnyPath, settings: frames.JpegSettings) -> str:
    """Completes a set of which all shards are written and returns its summary.

    Raises:
        PrepareError: shards are missing or damaged, with the parts that they belong to; or the files have changed.
    """
    planned = plan.make(raw, folder, settings)
    with _writing(folder):
        any_path.refresh(folder, locks.PLAN_AND_NOTES)
        recorded = recorded_plan.read(planned)
        if recorded is None:
            raise PrepareError(f"{folder} has no shards. Run the same command with --part=i/n instead of --finish.")
        planned = plan.with_shard_items(planned, recorded.shard_items)
        if recorded.description is not None:
            if changes := _outdated(planned, recorded.description, update=False):
                raise PrepareError(f"{folder} is complete, but out of date: {changes}. Prepare it again.")
            return _complete_already(planned)
        with locks.of_folder(folder):
            _refuse_other_files(planned, recorded)
            lacking = completion.missing(planned)
            if lacking:
                share = Share(1, recorded.share_count)
                raise PrepareError(f"{folder} is incomplete: {_by_share(planned, share, lacking)}. {_advice(share)}")
            completion.complete(planned)
    return completion.summary(folder)


@contextlib.contextmanager
def _writing(folder: AnyPath) -> Iterator[None]:
    """Converts the errors of reading and writing the files beside the shards."""
    try:
        yield
    except ownership.LostError as error:
        raise PrepareError(f"{error} Run the same command again to resume.") from error
    except RemoteError as error:
        raise PrepareError(f"{error}.") from error
    except OSError as error:
        raise PrepareError(f"{folder} cannot be written: {error.strerror or error}.") from error


def _begin(planned: plan.Plan, share: Share, update: bool) -> plan.Plan | None:
    """Records the plan, or joins the recorded one. Returns None if the set is complete and up to date."""
    recorded = recorded_plan.read(planned)
    made = None if recorded is None else recorded.description
    if recorded is not None:
        planned = plan.with_shard_items(planned, recorded.shard_items)
        if made is None and not share.is_whole and not _differs(planned, recorded, update):
            locks.refuse_running(planned.folder, share, _overlap(share), siblings=False)
            recorded_plan.record_share_count(planned, share)
            return planned
    found = _outdated(planned, made, update)
    if found is None:
        return None
    advice = _overlap(share) if share.is_whole else "The files have changed, so no other part may run: stop it."
    locks.refuse_running(planned.folder, share, advice, siblings=True)
    if made is not None:
        print(f"Updating {planned.folder}: {found}.", flush=True)
    return _replan(planned, share, {} if recorded is None else recorded.shard_items)


def _overlap(share: Share) -> str:
    if share.is_whole:
        return "Without --part, this command would write the same shards. Wait for it, or stop it."
    return f"{share.title} would write the same shards. Wait for it, or use the same n in every --part=i/n."


def _differs(planned: plan.Plan, recorded: recorded_plan.Recorded, update: bool) -> bool:
    """Whether the files differ from those planned by another share.

    Raises:
        PrepareError: they differ, without `update`.
    """
    if not update:
        _refuse_other_files(planned, recorded)
    return bool(recorded_plan.difference(planned, recorded))


def _refuse_other_files(planned: plan.Plan, recorded: recorded_plan.Recorded) -> None:
    if different := recorded_plan.difference(planned, recorded):
        raise PrepareError(
            f"{planned.folder} was planned for other files than those of --source here: {different}. Every part needs "
            "the same files with the same sizes and modification times (rsync -a keeps them). If the files have "
            "changed, stop all parts and run one of them with --update first."
        )


def _replan(planned: plan.Plan, share: Share, sizes: Mapping[str, int]) -> plan.Plan:
    """Records a new plan. `sizes` are the items a shard of the plan before."""
    recorded_plan.open_notes(planned)
    shards = planned.all_shards()
    todo = [shard for shard in shards if shard_writer.read_note(shard) is None]
    if todo:
        encoded = disk_space.encoded_bytes(planned)
        planned = plan.with_shards_of(planned, encoded, sizes)
        expected = disk_space.expected_bytes(planned, encoded)
        done = planned.items - sum(len(shard.items) for shard in todo)
        print(
            f"{planned.raw.name}: {planned.items:,} {planned.raw.kind}, {disk_space.gigabytes(planned.raw_bytes)} as "
            f"downloaded; expected size {disk_space.gigabytes(expected)} in {planned.folder}"
            f"{f' ({done:,} done)' if done else ''}.",
            flush=True,
        )
        disk_space.check_free_space(planned, expected)
    recorded_plan.record(planned, share)
    for shard in planned.all_shards():
        if (note := shard_writer.read_note(shard)) is not None:
            shard_writer.adopt(shard, note)
    return planned


def _write(planned: plan.Plan, share: Share, processes: int, ray: str | None) -> None:
    """Writes the missing shards of a share."""
    shards = share.select(planned.all_shards())
    todo = [shard for shard in shards if shard_writer.read_note(shard) is None]
    total = sum(len(shard.items) for shard in shards)
    done = total - sum(len(shard.items) for shard in todo)
    name = planned.raw.name
    if not share.is_whole:
        name = f"{name}, {share}"
        print(f"{name}: {len(todo)} of {len(shards)} shards to write, {total - done:,} {planned.raw.kind}.", flush=True)
    shard_writer.discard_unfinished(todo)
    write = functools.partial(
        shard_writer.write, kind=planned.raw.kind, classes=planned.raw.classes, settings=planned.settings
    )
    with progress.Progress(total, planned.raw.kind, name=name, done=done) as bar:
        if ray is None:
            parallel.run(write, todo, processes, bar, done)
        else:
            ray_tasks.run(write, todo, ray, lambda shard: len(shard.items), bar, done)


def _end(planned: plan.Plan, share: Share, lock: ownership.Lock) -> str:
    """Completes the set if all its shards are written."""
    lock.check()
    recorded = recorded_plan.read(planned)
    if recorded is not None and recorded.description is not None:
        return _complete_already(planned)  # by another part, which ended at the same time
    lacking = completion.missing(planned)
    own = {shard.note for shard in share.select(planned.all_shards())} & {shard.note for shard in lacking}
    if own:
        first = next(shard for shard in lacking if shard.note in own)
        raise PrepareError(f"{first.file} has changed since it was written; run the same command again to rewrite it.")
    if lacking:
        return (
            f"{share.title} of {planned.folder} is written. To write: {_by_share(planned, share, lacking)}. "
            "The last part to end completes the set."
        )
    completion.complete(planned)
    return completion.summary(planned.folder)


def _by_share(planned: plan.Plan, share: Share, lacking: Sequence[shard_writer.Shard]) -> str:
    """Lists the missing shards, grouped by the shares that write them."""
    paths = {shard.note for shard in lacking}
    counts = []
    for each in share.siblings():
        of_share = each.select(planned.all_shards())
        missing = [shard.file.name for shard in of_share if shard.note in paths]
        if missing:
            names = f"{', '.join(missing[:SHOWN])}{', …' if len(missing) > SHOWN else ''}"
            holder = locks.holder(planned.folder, each)
            running = f"; in progress by {holder}" if holder else ""
            counts.append(f"{each} ({len(missing)} of {len(of_share)} shards: {names}{running})")
    return ", ".join(counts)


def _advice(share: Share) -> str:
    which = "without --finish" if share.is_whole else "with --part=i/n of each missing part instead of --finish"
    return f"Run the same command {which}."


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
    return None if made is not None and not found.any and completion.is_current(planned, made) else str(found)


def _has_notes(planned: plan.Plan) -> bool:
    return bool(list(planned.notes.glob("*-[0-9]*.json")))


def _complete_already(planned: plan.Plan) -> str:
    limitation = "prepared by an earlier version: added files with an older date are not detected"
    remark = "" if _has_notes(planned) else f" ({limitation})"
    return f"{planned.folder} is already complete{remark}.\n{completion.summary(planned.folder)}"


def _changes_of_older_set(planned: plan.Plan, made: Mapping[str, Any]) -> str:
    finished = planned.folder / array_record.DESCRIPTION_FILE
    return outdated.changes_without_notes(planned, finished.stat().st_mtime_ns, made["plan"])


def _out_of_date(planned: plan.Plan, made: Mapping[str, Any] | None, found: outdated.Changes) -> str:
    shards = planned.all_shards()
    todo = sum(shard_writer.read_note(shard) is None for shard in shards)
    before, now = made and made["plan"]["items"], planned.identity()["items"]
    counts = f" (items: {before} before, {now} now)" if before and before != now else ""
    return (
        f"{planned.folder} is out of date{counts}: {found}. A file counts as changed if its size or modification time "
        f"differs. Run the same command with --update to rewrite {todo} of {len(shards)} shards, or choose another "
        "--out."
    )
