"""Compiles a training step for hardware that is not there, and tells what it costs and whether it fits.

`python -m jepa_jax.compile --config FILE[:RECIPE] --topology v5e:4x4 [--global-batch N] [--sweep] [--config.key=…]`
"""

import dataclasses
import sys
import typing

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from jepa_jax import command_line
from jepa_jax.compiling import report
from jepa_jax.compiling.topology import Topology, TopologyError, parse_topology
from jepa_jax.config import Config, ConfigError, Remat, parse

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, and after a colon its recipe.")
TOPOLOGY = flags.DEFINE_string("topology", None, "v4, v5e, v5p or v6e with a shape in chips (v5e:4x4), or cpu:N.")
BATCH = flags.DEFINE_list("global-batch", None, "Clips a step, all chips together; with --sweep several: 32,64,128.")
SWEEP = flags.DEFINE_bool(
    "sweep",
    False,
    "A table over remat policies and batch sizes (--global-batch; else the config's, twice and four times).",
)


def main(arguments: list[str]) -> int:
    """Flags in, one report or table, exit code out: 0 if the step fits, 1 for an error, 2 if it does not fit."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")  # the devices compiled for are none of this machine's
    try:
        config = parse(Config, CONFIG.value)
        topology = parse_topology(TOPOLOGY.value or "")
        batches = [_batch(text) for text in BATCH.value or []]
        if SWEEP.value:
            return _sweep(config, topology, batches or [config.batch_size * factor for factor in (1, 2, 4)])
        if len(batches) > 1:
            raise ConfigError("--global-batch takes several sizes with --sweep only.")
        built = report.build(dataclasses.replace(config, batch_size=(batches or [config.batch_size])[0]), topology)
    except (ConfigError, TopologyError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(report.text(built))
    return 0 if built.fits else 2


def _batch(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"--global-batch is {text!r}; expected a whole number of at least 1.")
    return int(text)


def _sweep(config: Config, topology: Topology, batches: list[int]) -> int:
    """A row for each policy and batch size as soon as it is compiled; 0 if any of them fits."""
    print(report.line_of(report.COLUMNS), report.line_of(["---"] * len(report.COLUMNS)), sep="\n", flush=True)
    fits = False
    for batch in batches:
        for policy in typing.get_args(Remat):
            encoder = dataclasses.replace(config.encoder, remat=policy)
            built = report.build(dataclasses.replace(config, batch_size=batch, encoder=encoder), topology)
            print(report.line_of(report.table_row(built)), flush=True)
            fits |= built.fits
    return 0 if fits else 2


if __name__ == "__main__":
    command_line.run(main, CONFIG, "topology")
