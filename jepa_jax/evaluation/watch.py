"""Follows a training run: evaluates every checkpoint as it is saved, until the run's last one.

A run is done once it has saved the checkpoint of its last step (`steps` in its config.json), as training always does.
Results are appended to a file of JSON lines, each a record of results.json.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from jepa_jax.checkpoints import reader
from jepa_jax.evaluation import frozen_encoder, job, probe_runs
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.features.cache import Cache
from jepa_jax.evaluation.results import results_file, table
from jepa_jax.files import jsonl
from jepa_jax.files.paths import reachable
from jepa_jax.run_dir import workdir
from jepa_jax.settings import ConfigError, difference, parse, to_dict

POLL = 5.0  # seconds between checks of the run's folder
QUIET = 600.0  # seconds without a change in the run's folder, after which a message is printed
CELL = 20  # characters of an accuracy with its interval

Record = dict[str, Any]
Sleep = Callable[[float], object]


def follow(
    config: EvalConfig,
    run: epath.PathLike,
    out: epath.PathLike | None = None,
    cache: str | os.PathLike[str] | None = None,
    *,
    last_only: bool = False,
    sleep: Sleep = time.sleep,
    clock: Callable[[], float] = time.time,
) -> list[Record]:
    """Evaluates the checkpoints of a training run that `out` has no results of, and waits for further ones.

    A checkpoint that is damaged, or that training deletes (`checkpoint.keep`) before it is read, is reported and
    skipped. Features are deleted except those of the newest encoder.

    Args:
        config: the clips and the probes.
        run: folder of the run; need not exist.
        out: file of JSON lines that results are appended to. Default: RUN/evaluation.jsonl.
        cache: folder for features. Default: `features` beside `out`; a temporary folder if `out` is on an object store.
        last_only: wait for the last checkpoint and evaluate only that one.
        sleep: called with the seconds to wait between checks of the run's folder.
        clock: seconds since the epoch; compared with the modification times of the run's files.

    Returns:
        One record for each checkpoint, ascending by step, including those that `out` already had.

    Raises:
        ConfigError: settings or folders that cannot be used, or an `out` with results of other settings.
        OwnershipError: another job writes to `out`.
        Exception: the errors of `job.evaluate`.
    """
    folder = reachable(run)
    file = folder / "evaluation.jsonl" if out is None else reachable(out)
    _wait_for(folder, sleep)
    with job.own_out(file, "evaluation.jsonl") as lock, job.cache_folder(file, cache) as features:
        records = _read(file, config)
        _show(records)
        for step in _steps(folder, last_only, sleep, clock):
            encoder = _load(run, step, sleep)
            if encoder is None:
                continue
            known = records.get(step)
            if known is None or known["checkpoint"]["parameters_sha256"] != encoder.fingerprint:
                records[step] = job.evaluate_encoder(config, encoder, features).record
                # Includes features left by an earlier watch.
                Cache(features).remove_other_checkpoints(encoder.source, encoder.fingerprint)
                lock.check()
                _append(file, records[step])
                _show(records, step)
        return [records[step] for step in sorted(records)]


def curve(records: Sequence[Mapping[str, Any]]) -> str:
    """Accuracies by step as text, in percent with 95 % intervals; the untrained encoder, if any, comes first."""
    columns = [(row["task"], row["probe"]) for row in records[-1]["results"] if row["features"] == probe_runs.TRAINED]
    lines = [("step", *(f"{task} {probe}".ljust(CELL) for task, probe in columns))]
    if any(row["features"] == probe_runs.UNTRAINED for row in records[0]["results"]):
        lines.append(("untrained", *_cells(records[0], probe_runs.UNTRAINED, columns)))
    lines += [(str(record["checkpoint"]["step"]), *_cells(record, probe_runs.TRAINED, columns)) for record in records]
    return table.align(lines, left=len(columns) + 1)


def _cells(record: Mapping[str, Any], features: str, columns: Sequence[tuple[str, str]]) -> Iterator[str]:
    rows = {(row["task"], row["probe"]): row for row in record["results"] if row["features"] == features}
    for column in columns:
        row = rows.get(column)
        if row is None:
            yield "–".ljust(CELL)
        else:
            low, high = map(table.percent, row["interval"])
            yield f"{table.percent(row['accuracy'])} ({low} – {high})".ljust(CELL)


def _wait_for(run: epath.Path, sleep: Sleep) -> None:
    """Waits until the folder is that of a run. Nothing is written before, since a run needs an empty folder."""
    if not (run / workdir.CONFIG).exists():
        _print_waiting("a checkpoint", run)
        while not (run / workdir.CONFIG).exists():
            sleep(POLL)


def _print_waiting(event: str, run: epath.Path) -> None:
    print(f"Waiting for {event} in {run} (press Ctrl-C to stop).", flush=True)


def _steps(run: epath.Path, last_only: bool, sleep: Sleep, clock: Callable[[], float]) -> Iterator[int]:
    """Yields the step of each complete checkpoint once, ascending; ends after the run's last."""
    seen, waiting_printed, quiet_printed = -1, False, False
    while True:
        steps = reader.saved_steps(run)
        if steps and steps[-1] < seen:
            seen = -1  # another run has replaced this one
        last = workdir.load_config(run).steps if steps else None
        done = last is not None and steps[-1] >= last
        new = [step for step in steps if step > seen]
        if last_only:
            new = new[-1:] if done else []
        # One step at a time: training saves and deletes checkpoints during an evaluation.
        if new:
            seen, waiting_printed, quiet_printed = new[0], False, False
            yield seen
        elif done:
            return
        else:
            if not waiting_printed:
                event = f"a checkpoint after step {max(seen, steps[-1])}" if steps else "a checkpoint"
                _print_waiting(event, run)
                waiting_printed = True
            quiet = _quiet_seconds(run, clock)
            if quiet > QUIET and not quiet_printed:
                print(
                    f"{run} was last written to {quiet / 60:.0f} min ago. If its training has died, start it again: "
                    "this command keeps waiting for it. Press Ctrl-C to stop.",
                    flush=True,
                )
            quiet_printed = quiet > QUIET
            sleep(POLL)


def _quiet_seconds(run: epath.Path, clock: Callable[[], float]) -> float:
    """Seconds since the run's metrics or checkpoints last changed; 0 if it has none."""
    times = [path.stat().mtime for path in (run / "metrics.jsonl", run / "checkpoints") if path.exists()]
    latest = max(times, default=0)
    return clock() - latest if latest else 0.0  # an object store may have no times of folders


def _load(run: epath.PathLike, step: int, sleep: Sleep) -> frozen_encoder.FrozenEncoder | None:
    """The encoder of a checkpoint; None, with a message, if the checkpoint was deleted or is damaged."""
    try:
        return frozen_encoder.load(f"{run}:{step}")
    except Exception as error:
        # Orbax raises various errors for files that are deleted while it reads them.
        sleep(1)  # seconds for a deletion to finish
        if step not in reader.saved_steps(run):
            print(
                f"Step {step} was deleted before it could be read; a larger checkpoint.keep keeps more.",
                flush=True,
            )
            return None
        if isinstance(error, reader.CheckpointDamaged):
            print(f"Skipping step {step}: {error}", flush=True)
            return None
        raise


def _read(out: epath.Path, config: EvalConfig) -> dict[int, Record]:
    """Records of `out` by step; a later line replaces an earlier one. An incomplete last line is removed."""
    records = {}
    wanted = json.loads(json.dumps(to_dict(config)))
    for number, line in enumerate(jsonl.whole_lines(out), start=1):
        try:
            record = json.loads(line)
            # Settings that were added since have their defaults.
            step, settings = record["checkpoint"]["step"], to_dict(parse(EvalConfig, record["settings"], "settings"))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{out}:{number} is not a result of an evaluation; name another --out.") from error
        if changes := difference(json.loads(json.dumps(settings)), wanted):
            raise ConfigError(
                f"{out}:{number} was evaluated with other settings (there → here):\n  "
                + "\n  ".join(changes[:5])
                + "\n"
                "Name another --out."
            )
        records[step] = record
    return records


def _append(out: epath.Path, record: Mapping[str, Any]) -> None:
    content = {"schema": results_file.SCHEMA, "version": results_file.VERSION, **record}
    jsonl.append(out, json.dumps(content, allow_nan=False))


def _show(records: Mapping[int, Record], step: int | None = None) -> None:
    """Prints the curve; with `step`, only the line of that step unless it is the first."""
    if not records:
        return
    text = curve([records[number] for number in sorted(records)])
    if step is None or len(records) == 1:
        print(text, flush=True)
    else:
        print(curve([records[step]]).splitlines()[-1], flush=True)
