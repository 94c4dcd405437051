"""Trains a Video-JEPA: `python -m jepa_jax.train --config FILE[:RECIPE] --workdir DIR [--config.key=value …]`."""

import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jepa_jax import command_line
from jepa_jax.config import Config, ConfigError, parse
from jepa_jax.data import TooManySkippedError
from jepa_jax.training.checkpoint import CheckpointError
from jepa_jax.training.loop import NonFiniteLossError, train

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, and after a colon its recipe.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints and metrics go; a run in it is resumed. Default: runs/CONFIG-RECIPE-SEED."
)
RESUME = flags.DEFINE_enum("resume", "auto", ["auto", "overwrite"], "overwrite: move an earlier run aside, start anew.")


def main(arguments: list[str]) -> int:
    """Flags in, one run, exit code out."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")
    logging.set_verbosity(logging.WARNING)  # orbax tells much at INFO
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
        _become_probe_job(config.probe, workdir)
    return 0


def default_workdir(config: Config) -> pathlib.Path:
    """runs/CONFIG-RECIPE-SEED, below the folder the command is given in."""
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return pathlib.Path("runs") / f"{name}-{config.recipe}-{config.seed}"


def _become_probe_job(probe: str, workdir: str | pathlib.Path) -> None:
    """Replaces this process by the evaluation job, which so has the devices and the memory to itself."""
    command = [sys.executable, "-m", "jepa_jax.evaluate", f"--config={probe}", f"--checkpoint={workdir}"]
    command.append(f"--out={pathlib.Path(workdir) / 'results.json'}")
    print(f"Evaluating: {' '.join(['python', *command[1:]])}", flush=True)
    os.execv(sys.executable, command)


if __name__ == "__main__":
    command_line.run(main, CONFIG)
