"""Compiles a training step for hardware that need not be present; reports its cost and whether it fits.

`python -m jepa_jax.compile --config FILE[:RECIPE] --topology v5e:4x4 [--global_batch N] [--sweep] [--config.key=…]`
"""

import dataclasses
import sys
import typing

from absl import app, flags, logging

# Importing JAX takes seconds: it and the modules that use it are imported after the flags are parsed.
from jepa_jax.cli import command_line, config_flag
from jepa_jax.config import Config, Remat
from jepa_jax.settings import ConfigError, parse

if typing.TYPE_CHECKING:
    from jepa_jax.cost_model.topology import Topology

CONFIG = config_flag.define(Config, "The name of a config (quickstart, mixed, …) or a file; after a colon its recipe.")
TOPOLOGY = flags.DEFINE_string("topology", None, "v4, v5e, v5p or v6e with a shape in chips (v5e:4x4), or cpu:N.")
BATCH = flags.DEFINE_list("global_batch", None, "Global batch size; with --sweep, one or more: 32,64,128.")
SWEEP = flags.DEFINE_bool(
    "sweep",
    False,
    "Print a table over remat policies and batch sizes (--global_batch, or 1, 2 and 4 times the config's).",
)


def main(arguments: list[str]) -> int:
    """Prints a report or a table. Returns the exit code: 0 if the step fits, 1 for an error, 2 if it does not fit."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unexpected argument {arguments[1]!r}; settings are given as --config.key=value.")
    logging.set_verbosity(logging.WARNING)
    with command_line.importing():
        import jax

        from jepa_jax.cost_model import report
        from jepa_jax.cost_model.topology import TopologyError, parse_topology

    jax.config.update("jax_platforms", "cpu")  # the compile target is not this machine
    try:
        config = parse(Config, CONFIG.value)
        topology = parse_topology(TOPOLOGY.value or "")
        batches = [_batch(text) for text in BATCH.value or []]
        if SWEEP.value:
            return _sweep(config, topology, batches or [config.batch_size * factor for factor in (1, 2, 4)])
        if len(batches) > 1:
            raise ConfigError("--global_batch takes several sizes only with --sweep.")
        built = report.build(dataclasses.replace(config, batch_size=(batches or [config.batch_size])[0]), topology)
    except (ConfigError, TopologyError) as error:
        given = f"--global_batch={','.join(BATCH.value)}: " if BATCH.value and "config.batch_size" in str(error) else ""
        print(f"Error: {given}{error}", file=sys.stderr)
        return 1
    print(report.text(built))
    return 0 if built.fits else 2


def _batch(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"--global_batch is {text!r}; expected a whole number of at least 1.")
    return int(text)


def _sweep(config: Config, topology: "Topology", batches: list[int]) -> int:
    """Prints a row per policy and batch size as each is compiled. Returns 0 if any fits, else 2."""
    from jepa_jax.cost_model import report

    print(report.markdown_row(report.COLUMNS), report.markdown_row(["---"] * len(report.COLUMNS)), sep="\n", flush=True)
    fits = False
    for batch in batches:
        for policy in typing.get_args(Remat):
            encoder = dataclasses.replace(config.encoder, remat=policy)
            built = report.build(dataclasses.replace(config, batch_size=batch, encoder=encoder), topology)
            print(report.markdown_row(report.table_row(built)), flush=True)
            fits |= built.fits
    return 0 if fits else 2


if __name__ == "__main__":
    command_line.run(main, "config", "topology")
