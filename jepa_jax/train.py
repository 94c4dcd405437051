"""Trains a Video-JEPA: `python -m jepa_jax.train --config CONFIG[:RECIPE] --workdir DIR [--config.key=value …]`.

CONFIG is the name of a config (quickstart, mixed, …) or a file. SIGTERM or Ctrl-C saves a checkpoint and exits; run the
same command again to resume. Exit codes: 0 after success, 143 after SIGTERM, 130 after Ctrl-C, 1 after an error.
"""

import dataclasses
import os
import pathlib
import signal
import sys
import typing

from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are checked.
from jepa_jax import config_files
from jepa_jax.cli import command_line, config_flag
from jepa_jax.config import Config, Schedules
from jepa_jax.distributed import exit_codes
from jepa_jax.distributed.cluster import find_cluster
from jepa_jax.files.paths import require_local
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training.tracking.wandb_writer import require_installed

CONFIG = config_flag.define(Config, "The name of a config (quickstart, mixed, …) or a file; after a colon its recipe.")
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder for checkpoints and metrics. If it contains a run, that run is resumed. Default: runs/CONFIG-RECIPE-SEED.",
)
RESUME = flags.DEFINE_enum(
    "resume",
    "auto",
    ["auto", "extend", "overwrite"],
    "extend: continue the run in --workdir with another --config.steps or other schedules. overwrite: move it aside "
    "and start again.",
)
SCHEDULES = flags.DEFINE_enum(
    "schedules",
    None,
    list(typing.get_args(Schedules)),
    "With --resume=extend. hold (the default): schedules end as planned, then keep their final values. stretch: they "
    "are planned for the new length, as if the run had been that long from the start.",
)
PROFILE = flags.DEFINE_string(
    "profile", None, "STEP:STEPS. Traces STEPS steps, starting with step STEP, to WORKDIR/profile, for TensorBoard."
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if it cannot be detected.")
PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes of the run, if it cannot be detected.")
use_compilation_cache = command_line.define_compilation_cache()
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Index of this process from 0, if it cannot be detected.")


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
    logging.set_verbosity(logging.WARNING)  # hides the INFO messages of orbax and jax
    request = None
    try:
        cluster = find_cluster(COORDINATOR.value, PROCESSES.value, PROCESS_ID.value)
        if cluster is None:
            exit_codes.exit_on_sigterm()  # until training starts, when SIGTERM becomes a request to save and stop
            with command_line.importing():  # of JAX, by the modules of masks and objectives
                request = read_flags(arguments)
            print(request, flush=True)
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    from jepa_jax.distributed import processes

    try:
        if cluster is not None:
            processes.join(cluster)  # JAX's preemption service then catches SIGTERM
        use_compilation_cache()
        command_line.reuse_memory()
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return processes.run_together(lambda: run(arguments, request))


def read_flags(arguments: list[str]) -> Request:
    """Parses the flags.

    Raises:
        ConfigError: the config is invalid, or flags contradict each other.
    """
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")
    config = parse(Config, CONFIG.value)
    if config_flag.given("recipe"):
        raise ConfigError("config.recipe cannot be set by a flag; choose the recipe with --config=FILE:RECIPE.")
    require_local(config.probe, "config.probe")
    probe = _find_probe(config.probe)
    require_installed(config.log.wandb)
    if SCHEDULES.value and RESUME.value != "extend":
        raise ConfigError(f"--schedules={SCHEDULES.value} needs --resume=extend.")
    schedules: Schedules = "stretch" if SCHEDULES.value == "stretch" else "hold"
    return Request(
        config,
        WORKDIR.value or default_workdir(config),
        overwrite=RESUME.value == "overwrite",
        extend=schedules if RESUME.value == "extend" else None,
        probe=probe,
    )


def run(arguments: list[str], request: Request | None = None) -> int:
    """Trains, then evaluates if the config asks for it. Returns the exit code.

    `request` is what the flags say; they are parsed if it is None.
    """
    with command_line.importing():
        from jepa_jax.checkpoints.manager import hide_orbax_tracebacks
        from jepa_jax.checkpoints.reader import CheckpointError
        from jepa_jax.data import TooManySkippedError
        from jepa_jax.distributed import processes
        from jepa_jax.files.ownership import OwnershipError
        from jepa_jax.files.write_errors import WriteError
        from jepa_jax.run_dir.run_lock import WorkdirLostError
        from jepa_jax.training import loop
        from jepa_jax.training.monitor import NonFiniteLossError, Profile

    logging.get_absl_logger().addFilter(hide_orbax_tracebacks)
    try:
        if request is None:
            request = read_flags(arguments)
            processes.say(str(request))
        outcome = loop.train(
            request.config,
            request.workdir,
            overwrite=request.overwrite,
            extend=request.extend,
            profile=None if PROFILE.value is None else Profile.parse(PROFILE.value),
        )
    except (
        ConfigError,
        CheckpointError,
        NonFiniteLossError,
        OwnershipError,
        TooManySkippedError,
        WorkdirLostError,
        WriteError,
        OSError,
    ) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if outcome.stopped_by is not None and (outcome.step < request.config.steps or request.probe is not None):
        return exit_codes.CODES[signal.Signals[outcome.stopped_by]]
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
