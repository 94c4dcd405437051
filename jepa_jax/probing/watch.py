"""Evaluation beside training: every checkpoint of a run is probed as it appears, until the run's last one.

A run is done when it has saved the checkpoint of its last step (`steps` in its config.json); training always saves that
one. What is found goes to a file of JSON lines, a record of results.json each.
"""

import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jepa_jax.config import ConfigError, difference, to_dict
from jepa_jax.probing import encoders, job, results
from jepa_jax.probing.cache import Cache
from jepa_jax.probing.config import EvalConfig
from jepa_jax.training import checkpoint, workdir

POLL = 5.0  # seconds between looks at the run's folder
QUIET = 600.0  # seconds without a sign of the run, after which that is said
CELL = 20  # characters of a figure with its interval

Record = dict[str, Any]


def follow(
    config: EvalConfig,
    run: str | pathlib.Path,
    out: str | pathlib.Path | None = None,
    cache: str | pathlib.Path | None = None,
    *,
    last_only: bool = False,
) -> list[Record]:
    """Probes the checkpoints of a training run that `out` has no results of, and waits for those to come.

    A checkpoint that training deletes (`checkpoint.keep`) before it is read, and a damaged one, are named and passed
    over. Features of all encoders but the newest are deleted.

    Args:
        config: the clips and the probes.
        run: folder of the run; may not exist yet.
        out: file of JSON lines that results are appended to; left out, RUN/evaluation.jsonl.
        cache: folder for features; left out, `features` beside `out`.
        last_only: waits for the last checkpoint and probes that one.

    Returns:
        One record a checkpoint, ascending by step, those found in `out` included.

    Raises:
        ConfigError: settings or folders that cannot be used, or an `out` with results of other settings.
        Exception: what `job.evaluate` raises.
    """
    run = pathlib.Path(run)
    out = run / "evaluation.jsonl" if out is None else pathlib.Path(out)
    records = _read(out, config)
    _show(records)
    previous = None
    for step in _steps(run, last_only):
        encoder = _load(run, step)
        if encoder is None:
            continue
        known = records.get(step)
        if known is None or known["checkpoint"]["parameters_sha256"] != encoder.fingerprint:
            out.parent.mkdir(parents=True, exist_ok=True)
            with job.cache_folder(out, cache) as folder:
                records[step] = job.evaluate_encoder(config, encoder, folder).record
                if previous not in (None, encoder.fingerprint):
                    Cache(folder).remove_encoder(previous)
            _append(out, records[step])
            _show(records, step)
            previous = encoder.fingerprint
    return [records[step] for step in sorted(records)]


def curve(records: Sequence[Mapping[str, Any]]) -> str:
    """Accuracies by step as text, in percent with 95 % intervals; the untrained encoder, if it was probed, on top."""
    columns = [(row["task"], row["probe"]) for row in records[-1]["results"] if row["features"] == job.TRAINED]
    lines = [("step", *(f"{task} {probe}".ljust(CELL) for task, probe in columns))]
    if any(row["features"] == "untrained" for row in records[0]["results"]):
        lines.append(("untrained", *_cells(records[0], "untrained", columns)))
    lines += [(str(record["checkpoint"]["step"]), *_cells(record, job.TRAINED, columns)) for record in records]
    return results.align(lines, left=len(columns) + 1)


def _cells(record: Mapping[str, Any], features: str, columns: Sequence[tuple[str, str]]) -> Iterator[str]:
    found = {(row["task"], row["probe"]): row for row in record["results"] if row["features"] == features}
    for column in columns:
        row = found.get(column)
        if row is None:
            yield "–".ljust(CELL)
        else:
            low, high = map(results.percent, row["interval"])
            yield f"{results.percent(row['accuracy'])} ({low} – {high})".ljust(CELL)


def _steps(run: pathlib.Path, last_only: bool) -> Iterator[int]:
    """Steps of complete checkpoints as they appear, each once, ascending; ends with the run's last."""
    seen, told, told_quiet = -1, False, False
    while True:
        steps = checkpoint.saved_steps(run)
        if steps and steps[-1] < seen:
            seen = -1  # another run has taken the folder
        last = workdir.load_config(run).steps if steps else None
        done = last is not None and steps[-1] >= last
        new = [step for step in steps if step > seen]
        if last_only:
            new = new[-1:] if done else []
        # One at a time: while it is probed, training goes on to save and to delete.
        if new:
            seen, told, told_quiet = new[0], False, False
            yield seen
        elif done:
            return
        else:
            if not told:
                what = f"a checkpoint after step {max(seen, steps[-1])}" if steps else "a checkpoint"
                print(f"Waiting for {what} in {run} (Ctrl-C ends this).", flush=True)
                told = True
            quiet = _quiet_seconds(run)
            if quiet > QUIET and not told_quiet:
                print(
                    f"{run} was last written to {quiet / 60:.0f} min ago. If its training has died, start it again "
                    "(this goes on waiting), or end this with Ctrl-C.",
                    flush=True,
                )
            told_quiet = quiet > QUIET
            time.sleep(POLL)


def _quiet_seconds(run: pathlib.Path) -> float:
    """Since the run's metrics or checkpoints last changed; 0 before it has any."""
    times = [path.stat().st_mtime for path in (run / "metrics.jsonl", run / "checkpoints") if path.exists()]
    return time.time() - max(times) if times else 0.0


def _load(run: pathlib.Path, step: int) -> encoders.FrozenEncoder | None:
    """The encoder of a checkpoint; None if it cannot be had any more."""
    try:
        return encoders.load(f"{run}:{step}")
    except Exception as error:
        # Orbax says many things of files that vanish while it reads them.
        time.sleep(1)  # a deletion under way comes to its end
        if step not in checkpoint.saved_steps(run):
            print(f"Step {step} was deleted before it could be read (checkpoint.keep of the run is small).", flush=True)
            return None
        if isinstance(error, checkpoint.CheckpointDamaged):
            print(f"Step {step} is passed over: {error}", flush=True)
            return None
        raise


def _read(out: pathlib.Path, config: EvalConfig) -> dict[int, Record]:
    """What `out` holds, by step; a later line replaces an earlier one. A line cut short by a kill is taken away."""
    if out.is_dir():
        raise ConfigError(f"--out={out} is a folder; name a file in it, as in {out / 'evaluation.jsonl'}.")
    if not out.exists():
        return {}
    whole, _, torn = out.read_bytes().rpartition(b"\n")
    if torn:
        with out.open("r+b") as file:
            file.truncate(len(whole) + 1 if whole else 0)
    records = {}
    wanted = json.loads(json.dumps(to_dict(config)))
    for number, line in enumerate(whole.decode("utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            step, settings = record["checkpoint"]["step"], record["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{out}:{number} is no result of an evaluation; name another --out.") from error
        if changes := difference(settings, wanted):
            raise ConfigError(
                f"{out}:{number} was evaluated with other settings (there → here):\n  "
                + "\n  ".join(changes[:5])
                + "\n"
                "Name another --out."
            )
        records[step] = record
    return records


def _append(out: pathlib.Path, record: Mapping[str, Any]) -> None:
    """One more line, on the disk when this returns."""
    line = {"schema": results.SCHEMA, "version": results.VERSION, **record}
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _show(records: Mapping[int, Record], step: int | None = None) -> None:
    """Prints the curve; with `step`, only the line of that step where the others stand already."""
    if not records:
        return
    text = curve([records[number] for number in sorted(records)])
    if step is None or len(records) == 1:
        print(text, flush=True)
    else:
        print(curve([records[step]]).splitlines()[-1], flush=True)
