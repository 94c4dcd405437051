"""Trains a Video-JEPA: `python -m jepa_jax.train --config FILE[:RECIPE] --workdir DIR [--config.key=value …]`."""

import os
import pathlib
import sys

import jax
from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from jepa_jax import command_line
from jepa_jax.config import Config, ConfigError, parse
from jepa_jax.data import TooManySkippedError
from jepa_jax.training import processes
from jepa_jax.training.checkpoint import CheckpointError
from jepa_jax.training.cluster import find_cluster
from jepa_jax.training.loop import NonFiniteLossError, train
from jepa_jax.training.workdir import is_remote

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, and after a colon its recipe.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints and metrics go; a run in it is resumed. Default: runs/CONFIG-RECIPE-SEED."
)
RESUME = flags.DEFINE_enum("resume", "auto", ["auto", "overwrite"], "overwrite: move an earlier run aside, start anew.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where no cluster tells it.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes the run has, where no cluster tells it.")
use_compilation_cache = command_line.define_compilation_cache()
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0, where no cluster tells it.")


def main(arguments: list[str]) -> int:
    """Flags in, one run, or this process's part of it, exit code out."""
    logging.set_verbosity(logging.WARNING)  # orbax and jax tell much at INFO
    try:
        cluster = find_cluster(COORDINATOR.value, PROCESSES.value, PROCESS_ID.value)
        if cluster is not None:
            processes.join(cluster)
        use_compilation_cache()
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return processes.run_together(lambda: _train(arguments))


def _train(arguments: list[str]) -> int:
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")
    try:
        config = parse(Config, CONFIG.value)
        if "recipe" in config_flags.get_override_values(flags.FLAGS["config"]):
            raise ConfigError("config.recipe names what the config file made; choose it there: --config=FILE:RECIPE.")
        probe_file = pathlib.Path(config.probe.partition(":")[0])
        if config.probe and not probe_file.is_file():
            raise ConfigError(f"config.probe: there is no {probe_file} (looked from {pathlib.Path.cwd()}).")
        workdir = WORKDIR.value or default_workdir(config)
        outcome = train(config, workdir, overwrite=RESUME.value == "overwrite")
    except (ConfigError, CheckpointError, NonFiniteLossError, TooManySkippedError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if outcome.stopped_by is None and config.probe:
        _probe(config.probe, workdir)
    return 0


def default_workdir(config: Config) -> pathlib.Path:
    """runs/CONFIG-RECIPE-SEED, below the folder the command is given in."""
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return pathlib.Path("runs") / f"{name}-{config.recipe}-{config.seed}"


def _probe(probe: str, workdir: epath.PathLike) -> None:
    """Replaces this process by the evaluation job, which so has the devices and the memory to itself.

    That job runs in one process. One of several cannot become it, as devices of a pod start together or not at all.
    """
    command = [sys.executable, "-m", "jepa_jax.evaluate", f"--config={probe}", f"--checkpoint={workdir}"]
    if not is_remote(epath.Path(workdir)):
        command.append(f"--out={pathlib.Path(workdir) / 'results.json'}")
    shown = " ".join(["python", *command[1:]])
    if processes.several():
        processes.say(f"To evaluate, on one machine: {shown}")
        return
    print(f"Evaluating: {shown}", flush=True)
    jax.distributed.shutdown()
    os.execv(sys.executable, command)


if __name__ == "__main__":
    command_line.run(main, CONFIG)
