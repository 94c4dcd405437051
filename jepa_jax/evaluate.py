"""Probes a frozen encoder: `python -m jepa_jax.evaluate --config FILE --checkpoint WORKDIR [--out results.json]`.

`--checkpoint` is WORKDIR (its newest checkpoint), WORKDIR:STEP, or an untrained encoder: random:WORKDIR (the one that
run began with), random:CONFIG.py, or `random` alone for the model that the evaluation's config names.

`--watch` follows the run in WORKDIR, probes each checkpoint as it is saved, and ends with the run's last one;
`--watch --last_only` waits for that one.

`python -m jepa_jax.evaluate --compare A.json B.json …` prints results files side by side; of what
`--watch` wrote, name evaluation.jsonl (its last step) or evaluation.jsonl:STEP.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jepa_jax import command_line
from jepa_jax.config import ConfigError, parse
from jepa_jax.data import TooManySkippedError
from jepa_jax.probing import compare, encoders, results, watch
from jepa_jax.probing.config import EvalConfig
from jepa_jax.probing.job import evaluate
from jepa_jax.probing.labels import LabelError
from jepa_jax.training.checkpoint import CheckpointError

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/eval/, and after a colon its argument.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "WORKDIR[:STEP], random:WORKDIR, random:CONFIG.py or random.")
CACHE = flags.DEFINE_string("cache", None, "Where features are kept. Default: the folder `features` beside --out.")
COMPARE = flags.DEFINE_bool("compare", False, "Print the results files that follow side by side; evaluate nothing.")
WATCH = flags.DEFINE_bool("watch", False, "Follow the run in WORKDIR, probing each checkpoint as it is saved.")
LAST_ONLY = flags.DEFINE_bool("last_only", False, "With --watch: only the run's last checkpoint, once it is saved.")
OUT = flags.DEFINE_string(
    "out",
    None,
    "Where results.json is written. Default: nowhere, the table is all. With --watch: a file of JSON lines that "
    "results are appended to, by default WORKDIR/evaluation.jsonl.",
)


def main(arguments: list[str]) -> int:
    """Flags in, one evaluation or comparison, exit code out."""
    if COMPARE.value:
        return _compare(arguments[1:])
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")
    logging.set_verbosity(logging.WARNING)  # orbax tells much at INFO
    try:
        config = parse(EvalConfig, CONFIG.value)
        if WATCH.value:
            return _watch(config, CHECKPOINT.value or "")
        if LAST_ONLY.value:
            raise ConfigError("--last_only goes with --watch; without it --checkpoint=WORKDIR is the newest as it is.")
        found = evaluate(config, CHECKPOINT.value or "", OUT.value, CACHE.value)
    except KeyboardInterrupt:
        print("Stopped; no results were written.", file=sys.stderr)
        return 130
    except (ConfigError, CheckpointError, LabelError, TooManySkippedError, FloatingPointError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(results.table(found.results))
    if found.record["representation"]:
        print(f"\n{results.representation_table(found.record['representation'])}")
    if OUT.value:
        print(f"Written to {OUT.value}.")
    return 0


def _watch(config: EvalConfig, run: str) -> int:
    if encoders.split_step(run)[1] is not None or run.partition(":")[0] in ("", "random"):
        raise ConfigError(f"--watch follows a training run: --checkpoint is {run!r}, expected WORKDIR alone.")
    out = pathlib.Path(OUT.value or pathlib.Path(run) / "evaluation.jsonl")
    try:
        found = watch.follow(config, run, out, CACHE.value, last_only=LAST_ONLY.value)
    except KeyboardInterrupt:
        print(f"Stopped; what was found until now is in {out}.", file=sys.stderr)
        return 130
    print(f"The run is done. {len(found)} checkpoints in {out}.")
    return 0


def _compare(paths: list[str]) -> int:
    try:
        print(compare.compare(paths))
    except results.ResultsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    command_line.run(main, CONFIG, "checkpoint", unless=COMPARE)
