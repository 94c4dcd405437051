"""Evaluates a frozen encoder: `python -m jepa_jax.evaluate --config FILE --checkpoint WORKDIR [--out results.json]`.

`--checkpoint` is a training run: WORKDIR (its newest checkpoint) or WORKDIR:STEP. Or released weights: a .pt or
.safetensors file, a folder with config.json and model.safetensors, or a name such as facebook/vjepa2-vitl-fpc64-256. Or
an untrained encoder: random:WORKDIR (the run's initial parameters), random:CONFIG, or `random` (config.random_model).

`--features DIR` instead of `--checkpoint` probes features that any program wrote: DIR has mean.npy, all.npy, … and
clips.csv, as `python -m jepa_jax.features` writes them, or DIR/train and DIR/test have.

`--watch` follows the run in WORKDIR: it evaluates each checkpoint as it is saved and exits after the run's last one.
`--watch --last_only` evaluates only that one.

`python -m jepa_jax.evaluate --compare A.json B.json …` compares results files. For results of `--watch`, name
evaluation.jsonl (its last step) or evaluation.jsonl:STEP.

Exit codes: 0 after success, 143 after SIGTERM, 130 after Ctrl-C, 1 after an error.
"""

import pathlib
import sys

from absl import app, flags, logging
from etils import epath

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are checked.
from jepa_jax.cli import command_line, config_flag
from jepa_jax.distributed import exit_codes
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.files import write_errors
from jepa_jax.files.ownership import OwnershipError
from jepa_jax.files.paths import locate, split_step
from jepa_jax.settings import ConfigError, parse

CONFIG = config_flag.define(
    EvalConfig, "Name of a config (eval/sprites, …) or a file, with its argument after a colon."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "WORKDIR[:STEP], weights (a file, folder or name), random:WORKDIR, random:CONFIG or random."
)
FEATURES = flags.DEFINE_string(
    "features", None, "Folder of features (.npy and clips.csv) to probe, without an encoder."
)
CACHE = flags.DEFINE_string("cache", None, "Folder for features. Default: the folder `features` beside --out.")
COMPARE = flags.DEFINE_bool("compare", False, "Compare the results files named after the flags; evaluate nothing.")
WATCH = flags.DEFINE_bool("watch", False, "Follow the run in WORKDIR: evaluate each checkpoint as it is saved.")
LAST_ONLY = flags.DEFINE_bool("last_only", False, "With --watch: evaluate only the run's last checkpoint.")
use_compilation_cache = command_line.define_compilation_cache()
OUT = flags.DEFINE_string(
    "out",
    None,
    "File for the results, such as results.json. Default: only print the table. With --watch: a file of JSON lines "
    "that results are appended to, by default WORKDIR/evaluation.jsonl.",
)


def main(arguments: list[str]) -> int:
    """Runs one evaluation or comparison from flags. Returns the exit code."""
    if COMPARE.value:
        return _compare(arguments[1:])
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")
    logging.set_verbosity(logging.WARNING)  # hides the INFO messages of orbax
    exit_codes.raise_on_sigterm()
    try:
        config = parse(EvalConfig, CONFIG.value)
        checkpoint = CHECKPOINT.value or ""
        if (CHECKPOINT.value is None) == (FEATURES.value is None):
            state = "is missing" if FEATURES.value is None else "and --features are given; use one of them"
            raise ConfigError(f"--checkpoint {state}: {flags.FLAGS['checkpoint'].help}")
        if FEATURES.value is not None and (WATCH.value or CACHE.value):
            raise ConfigError("--features has no checkpoint and nothing to cache; leave --watch and --cache out.")
        if LAST_ONLY.value and not WATCH.value:
            raise ConfigError("--last_only needs --watch. Without it, --checkpoint=WORKDIR is the newest checkpoint.")
        if WATCH.value and (split_step(checkpoint)[1] is not None or checkpoint.partition(":")[0] in ("", "random")):
            raise ConfigError(
                f"--watch follows a training run: --checkpoint is {checkpoint!r}; use WORKDIR, without a step."
            )
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return run(config, checkpoint)


def run(config: EvalConfig, checkpoint: str) -> int:
    """Evaluates one checkpoint, or with --watch those of a run as they are saved. Returns the exit code."""
    with command_line.importing():
        from jepa_jax.checkpoints.reader import CheckpointError
        from jepa_jax.data import TooManySkippedError
        from jepa_jax.evaluation import given_features, job
        from jepa_jax.evaluation.probes.splits import LabelError
        from jepa_jax.evaluation.results import table
        from jepa_jax.weights import WeightsError

    try:
        use_compilation_cache()
        command_line.reuse_memory()
        if WATCH.value:
            return _watch(config, checkpoint)
        picture = None
        if FEATURES.value is not None:
            evaluation = given_features.evaluate(config, FEATURES.value, OUT.value)
        else:
            evaluation = job.evaluate(config, checkpoint, OUT.value, CACHE.value)
            picture = _draw(config, checkpoint, OUT.value) if config.picture and OUT.value else None
    except KeyboardInterrupt as request:
        print("Stopped; no results were written.", file=sys.stderr)
        return exit_codes.exit_code(request)
    except (
        ConfigError,
        CheckpointError,
        LabelError,
        WeightsError,
        OwnershipError,
        TooManySkippedError,
        FloatingPointError,
        OSError,
    ) as error:
        folder = CACHE.value or pathlib.Path(OUT.value or "").absolute().parent
        print(f"Error: {write_errors.explain(error, folder) or error}", file=sys.stderr)
        return 1
    print(table.table(evaluation.results))
    if evaluation.velocity:
        print(f"\n{table.velocity_table(evaluation.velocity)}")
    if evaluation.record["representation"]:
        print(f"\n{table.representation_table(evaluation.record['representation'])}")
    if OUT.value:
        print(f"Written to {OUT.value}.")
    if picture:
        print(f"Features as colours: {picture}.")
    return 0


def _draw(config: EvalConfig, checkpoint: str, out: str) -> epath.Path:
    """Writes features.png beside the results and returns its path."""
    from jepa_jax.pictures import film
    from jepa_jax.show.kinds import features

    file = locate(out).parent / "features.png"
    file.write_bytes(film.png(features.beside_untrained(config, checkpoint)))
    return file


def _watch(config: EvalConfig, workdir: str) -> int:
    from jepa_jax.evaluation import watch

    out = locate(OUT.value or locate(workdir) / "evaluation.jsonl")
    try:
        records = watch.follow(config, workdir, out, CACHE.value, last_only=LAST_ONLY.value)
    except KeyboardInterrupt as request:
        print(f"Stopped; the results so far are in {out}.", file=sys.stderr)
        return exit_codes.exit_code(request)
    print(f"The run is done. Results of {len(records)} checkpoints are in {out}.")
    return 0


def _compare(paths: list[str]) -> int:
    from jepa_jax.evaluation.results import compare, results_file

    try:
        print(compare.compare(paths))
    except results_file.ResultsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    command_line.run(main, "config", unless=COMPARE)
