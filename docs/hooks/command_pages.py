"""The reference of commands, made from what `--help` prints."""

import os
import re
import subprocess
import sys

from jepa_jax.cli import console

INTRODUCTION = """# Commands

`python -m jepa_jax.COMMAND …` or `jepa-jax COMMAND …`. The text below is what `--help` prints.
"""


def page() -> str:
    """The page in Markdown.

    Raises:
        RuntimeError: a command that prints no help.
    """
    parts = [INTRODUCTION]
    for command, summary in console.COMMANDS.items():
        parts.append(f"## {command}\n\n{summary[0].upper()}{summary[1:]}.\n\n```text\n{help_of(command)}\n```\n")
    return "\n".join(parts)


def help_of(command: str) -> str:
    """What `--help` of a command prints."""
    run = subprocess.run(
        [sys.executable, "-m", f"jepa_jax.{command}", "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    text = run.stdout.strip()
    if not text:
        raise RuntimeError(f"python -m jepa_jax.{command} --help prints nothing: {run.stderr}")
    return re.sub(r"^/\S*?(jepa_jax/\S+:)$", r"\1", text, flags=re.MULTILINE)  # absl prints where a flag is defined
