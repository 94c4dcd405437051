"""Runs commands in forks of one Python process that has already imported the slow modules."""

import json
import os
import pathlib
import subprocess
import sys

FORKS = """
import contextlib, importlib, json, os, runpy, sys, traceback, warnings

for module in sys.argv[1:]:
    importlib.import_module(module)


def run(module, arguments, folder, stdout, stderr):
    os.chdir(folder)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
            return 1
        return exit.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


for line in sys.stdin:
    process = os.fork()
    if not process:
        code = run(**json.loads(line))
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
# Imported once. Each fork imports its own entry point, because importing it defines flags.
IMPORTED = ["jepa_jax.training.loop", "jepa_jax.evaluation.job"]
ROOT = pathlib.Path(__file__).parents[1]


class Forks:
    """Runs commands that end before they use a device, since JAX cannot be forked after it has started one."""

    def __init__(self, folder):
        """Keeps the commands' output in `folder`."""
        kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS, *IMPORTED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        )

    def run(self, module, *arguments, cwd):
        """Runs `python -m module arguments` in the folder `cwd` and returns its exit code and output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        files = {name: str(self._folder / name) for name in ("stdout", "stderr")}
        request = {"module": module, "arguments": list(map(str, arguments)), "folder": str(cwd), **files}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        output = {name: (self._folder / name).read_text() for name in files}
        return subprocess.CompletedProcess([module, *arguments], code, **output)

    def close(self):
        """Stops the process."""
        self._process.communicate()
