"""Fine-tunes an encoder on labelled clips: `python -m jepa_jax.finetune --config CONFIG --config.init=WEIGHTS …`.

CONFIG is the name of a config (finetune/folder, …) or a file. WEIGHTS is WORKDIR or WORKDIR:STEP of a training run, a
file or folder of released weights, or a model on the Hugging Face hub. The encoder is trained together with a
classification head, then scored on the test clips: WORKDIR/results.json, which `python -m jepa_jax.evaluate --compare`
puts beside the results of frozen probes.

SIGTERM or Ctrl-C saves a checkpoint and exits; run the same command again to resume. Exit codes: 0 after success, 143
after SIGTERM, 130 after Ctrl-C, 1 after an error.
"""

import dataclasses
import pathlib

from absl import flags
from etils import epath
from ml_collections import config_flags

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are checked.
from jepa_jax.cli import command_line, config_flag, run_flags
from jepa_jax.config import Schedules
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.settings import parse

CONFIG = config_flag.define(FinetuneConfig, "The name of a config (finetune/folder, …) or a file.")
FLAGS = run_flags.define("runs/finetune-CONFIG-SEED")


@dataclasses.dataclass(frozen=True)
class Request:
    """The run that the flags describe."""

    config: FinetuneConfig
    workdir: epath.PathLike
    overwrite: bool
    extend: Schedules | None

    def __str__(self) -> str:
        config = self.config
        return f"{self.workdir}: fine-tuning, seed {config.seed}, {config.steps} steps of {config.batch_size} clips."


def main(arguments: list[str]) -> int:
    """Fine-tunes one encoder, or computes this process's part of it, from flags. Returns the exit code."""
    return run_flags.launch(FLAGS, arguments, read_flags, run)


def read_flags(arguments: list[str]) -> Request:
    """Parses the flags.

    Raises:
        ConfigError: the config is invalid, or flags contradict each other.
    """
    run_flags.require_no_arguments(arguments)
    config = parse(FinetuneConfig, CONFIG.value)
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return Request(
        config,
        FLAGS.workdir.value or pathlib.Path("runs") / f"finetune-{name}-{config.seed}",
        overwrite=FLAGS.resume.value == "overwrite",
        extend=run_flags.extension(FLAGS.resume.value, FLAGS.schedules.value),
    )


def run(arguments: list[str], request: Request | None = None) -> int:
    """Fine-tunes and scores. Returns the exit code.

    `request` is what the flags say; they are parsed if it is None.
    """
    with command_line.importing():
        from jepa_jax.distributed import processes
        from jepa_jax.finetune import finetune_job
        from jepa_jax.training import loop
        from jepa_jax.training.monitor import Profile

    def job() -> loop.Outcome:
        nonlocal request
        if request is None:
            request = read_flags(arguments)
            processes.say(str(request))
        return finetune_job.finetune(
            request.config,
            request.workdir,
            overwrite=request.overwrite,
            extend=request.extend,
            profile=None if FLAGS.profile.value is None else Profile.parse(FLAGS.profile.value),
        )

    outcome = run_flags.attempt(job)
    if outcome is None:
        return 1
    return 0 if outcome.stopped_by is None else run_flags.exit_code(outcome.stopped_by)


if __name__ == "__main__":
    command_line.run(main, "config")
