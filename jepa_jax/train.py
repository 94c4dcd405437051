"""Trains a Video-JEPA: `python -m jepa_jax.train --config CONFIG[:RECIPE] --workdir DIR [--config.key=value …]`.

CONFIG is the name of a config (quickstart, mixed, …) or a file. SIGTERM or Ctrl-C saves a checkpoint and exits; run the
same command again to resume. Exit codes: 0 after success, 143 after SIGTERM, 130 after Ctrl-C, 1 after an error.
"""

import dataclasses
import os
import pathlib
import sys

from absl import flags
from etils import epath
from ml_collections import config_flags

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are checked.
from jepa_jax import config_files
from jepa_jax.cli import command_line, config_flag, run_flags
from jepa_jax.config import Config, Schedules
from jepa_jax.files.paths import require_local
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training.tracking.wandb_writer import require_installed

CONFIG = config_flag.define(Config, "The name of a config (quickstart, mixed, …) or a file; after a colon its recipe.")
FLAGS = run_flags.define("runs/CONFIG-RECIPE-SEED")
WORKDIR, RESUME, SCHEDULES, PROFILE = FLAGS.workdir, FLAGS.resume, FLAGS.schedules, FLAGS.profile


@dataclasses.dataclass(frozen=True)
class Request:
    """The run that the flags describe."""

    config: Config
    workdir: epath.PathLike
    overwrite: bool
    extend: Schedules | None
    probe: str | None  # the evaluation that follows

    def __str__(self) -> str:
        config = self.config
        return (
            f"{self.workdir}: {config.recipe}, seed {config.seed}, {config.steps} steps of {config.batch_size} clips."
        )


def main(arguments: list[str]) -> int:
    """Trains one run, or this process's part of it, from flags. Returns the exit code."""
    return run_flags.launch(FLAGS, arguments, read_flags, run)


def read_flags(arguments: list[str]) -> Request:
    """Parses the flags.

    Raises:
        ConfigError: the config is invalid, or flags contradict each other.
    """
    run_flags.require_no_arguments(arguments)
    config = parse(Config, CONFIG.value)
    if config_flag.given("recipe"):
        raise ConfigError("config.recipe cannot be set by a flag; choose the recipe with --config=FILE:RECIPE.")
    require_local(config.probe, "config.probe")
    probe = _find_probe(config.probe)
    require_installed(config.log.wandb)
    extend = run_flags.extension(RESUME.value, SCHEDULES.value)
    return Request(
        config,
        WORKDIR.value or default_workdir(config),
        overwrite=RESUME.value == "overwrite",
        extend=extend,
        probe=probe,
    )


def run(arguments: list[str], request: Request | None = None) -> int:
    """Trains, then evaluates if the config asks for it. Returns the exit code.

    `request` is what the flags say; they are parsed if it is None.
    """
    with command_line.importing():
        from jepa_jax.distributed import processes
        from jepa_jax.training import loop
        from jepa_jax.training.monitor import Profile

    def job() -> loop.Outcome:
        nonlocal request
        if request is None:
            request = read_flags(arguments)
            processes.say(str(request))
        return loop.train(
            request.config,
            request.workdir,
            overwrite=request.overwrite,
            extend=request.extend,
            profile=None if PROFILE.value is None else Profile.parse(PROFILE.value),
        )

    outcome = run_flags.attempt(job)
    if outcome is None or request is None:
        return 1
    if outcome.stopped_by is not None and (outcome.step < request.config.steps or request.probe is not None):
        return run_flags.exit_code(outcome.stopped_by)
    if request.probe is not None:
        evaluate_run(request.probe, request.workdir)
    return 0


def _find_probe(probe: str) -> str | None:
    """Resolves `config.probe`, a name or a path. In a config file, the path may be relative to that file."""
    if not probe:
        return None
    found = config_files.find(probe, None if config_flag.given("probe") else config_flag.file())
    if found is None:
        path = probe.partition(":")[0]
        raise ConfigError(
            f"config.probe is {path}, which is neither a file (in {pathlib.Path.cwd()}) nor the name of a config."
            f"{config_files.known(probe)}"
        )
    return config_files.shorten(found)


def default_workdir(config: Config) -> pathlib.Path:
    """runs/CONFIG-RECIPE-SEED in the current folder."""
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return pathlib.Path("runs") / f"{name}-{config.recipe}-{config.seed}"


def evaluate_run(probe: str, workdir: epath.PathLike) -> None:
    """Replaces this process by the evaluation job, which then has all devices and memory to itself.

    The job runs in one process, which is impossible on a pod, as all its processes must start together. With several
    processes this only prints the command.
    """
    import jax

    from jepa_jax.distributed import processes

    command = [sys.executable, "-m", "jepa_jax.evaluate", f"--config={probe}", f"--checkpoint={workdir}"]
    command.append(f"--out={epath.Path(workdir) / 'results.json'}")
    shown = " ".join(["python", *command[1:]])
    if processes.several():
        processes.say(f"To evaluate, on one machine: {shown}")
        return
    print(f"Evaluating: {shown}", flush=True)
    jax.distributed.shutdown()
    os.execv(sys.executable, command)


if __name__ == "__main__":
    command_line.run(main, "config")
