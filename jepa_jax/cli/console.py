"""The console script: `jepa-jax train …` runs `python -m jepa_jax.train …`."""

import runpy
import sys

COMMANDS = {
    "train": "train a Video-JEPA",
    "finetune": "train an encoder and a classifier on labelled clips",
    "evaluate": "probe a frozen encoder",
    "show": "draw features, masks, predictions, runs and results",
    "features": "write features of videos or images",
    "study": "train and probe many recipes with many seeds, and report what is clear",
    "prepare": "prepare a dataset for fast reading",
    "compile": "report cost and memory of a training step on hardware that need not be present",
    "parity": "compare this package with golden numbers on the default device",
}


def main() -> None:
    """Runs the module named by the first argument; without an argument, prints the commands."""
    width = max(map(len, COMMANDS))
    usage = "\n".join(
        [
            "Usage: jepa-jax COMMAND …",
            "",
            *(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()),
            "",
            "Run jepa-jax COMMAND --help to list the flags of a command.",
        ]
    )
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print(usage)
        return
    command = sys.argv.pop(1)
    if command not in COMMANDS:
        print(f"Error: unknown command {command!r}.\n{usage}", file=sys.stderr)
        raise SystemExit(2)
    sys.argv[0] = f"jepa-jax {command}"
    runpy.run_module(f"jepa_jax.{command}", run_name="__main__", alter_sys=True)
