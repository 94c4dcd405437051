"""Commands in README and docs: their modules, configs, flags and settings exist."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from jepa_jax import config_files
from jepa_jax.cli import console

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"python -m jepa_jax\.(\w+)(?![\w.])((?:\\\n|[^\n`])*)")
PLACEHOLDER = re.compile(r"[A-Z]{2,}|…")


def commands():
    """(page, module, arguments) of every command."""
    for page in PAGES:
        for module, rest in COMMAND.findall(page.read_text()):
            words = shlex.split(rest.replace("\\\n", " ").replace("…", "").rstrip(".,)"), comments=True)
            ends = [number for number, word in enumerate(words) if word in ("&&", "|", ";", ">")]
            yield str(page.relative_to(ROOT)), module, words[: min(ends, default=len(words))]


@pytest.fixture(scope="module")
def flags():
    """The flags that each command lists."""
    listed = {}
    for module in console.COMMANDS:
        run = subprocess.run([sys.executable, "-m", f"jepa_jax.{module}", "--help"], capture_output=True, text=True)
        listed[module] = set(re.findall(r"--(?:\[no\])?(\w+)", run.stdout))
        assert listed[module], run.stderr
    return listed


def test_commands_are_found():
    found = {module for _, module, _ in commands()}
    assert {"train", "evaluate", "study", "features", "prepare"} <= found <= console.COMMANDS.keys()


def test_flags_and_configs_exist(flags):
    wrong = []
    for page, module, arguments in commands():
        config = None
        for position, argument in enumerate(arguments):
            if not argument.startswith("--"):
                continue
            name, _, value = argument[2:].partition("=")
            if name == "config":
                value = value or arguments[position + 1]
                if not PLACEHOLDER.search(value) and not value.startswith("--") and not value.endswith(":help"):
                    config = config_files.find(value)
                    if config is None:
                        wrong.append(f"{page}: {module} --config {value} does not exist")
            elif name.startswith("config."):
                if config is not None and not has_setting(config, name.split(".")[1:]):
                    wrong.append(f"{page}: {module} has no setting {name}")
            elif name.removeprefix("no") not in flags[module] and name not in flags[module]:
                wrong.append(f"{page}: {module} has no flag --{name}")
    assert wrong == []


def has_setting(config, path):
    value = config_files.load(config)
    if path[0] == "objectives" and path[-1] in ("class", "coefficient"):  # of the reader's own
        return True
    for key in path:
        if PLACEHOLDER.search(key):
            return True
        if key not in value:
            return False
        value = value[key]
    return True
