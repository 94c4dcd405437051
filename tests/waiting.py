"""Waits for other processes and threads: for a condition, or until one reaches a chosen file operation."""

import dataclasses
import os
import pathlib
import time


def wait_until(condition, *processes, seconds=300.0):
    """Polls a condition. Fails after some time, or if one of the `processes` (of `subprocess`) ends without it."""
    end = time.monotonic() + seconds
    while not condition():
        for process in processes:
            # It may have ended after the condition became true.
            assert process.poll() is None or condition(), process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


# Installed in a process and those that it starts, since Python imports this module at startup.
HOOK = """
import os, re, sys

folder, pattern, count = os.environ["PAUSE_IN"], re.compile(os.environ["PAUSE_AT"]), int(os.environ["PAUSE_COUNT"])
EVENTS = ("open", "os.rename", "os.mkdir", "os.rmdir")


def hook(event, arguments):
    global count
    if event not in EVENTS or not isinstance(arguments[0], (str, os.PathLike)) or not count:
        return
    if pattern.search(f"{event} {os.fspath(arguments[0])}"):
        count -= 1
        if not count:
            open(f"{folder}/reached", "w").close()
            open(f"{folder}/resume").close()  # waits until it is opened for writing


sys.addaudithook(hook)
"""


@dataclasses.dataclass(frozen=True)
class Pause:
    """A point at which a Python process waits, before a file operation, so that it can be killed there.

    Attributes:
        folder: a new folder for the pause's files.
        pattern: regular expression of the operation and its path, such as "open .*[.]png$". The operations are those
            of Python: open, os.rename, os.mkdir and os.rmdir.
        count: the number of the operation in the process, among those that match.
    """

    folder: pathlib.Path
    pattern: str
    count: int = 1

    def __post_init__(self):
        """Creates the folder."""
        self.folder.mkdir()
        (self.folder / "sitecustomize.py").write_text(HOOK)
        os.mkfifo(self.folder / "resume")

    def added_to(self, environment):
        """The environment of a process that waits at this point, or starts one that does."""
        path = os.pathsep.join(filter(None, [str(self.folder), environment.get("PYTHONPATH")]))
        names = {"PAUSE_IN": str(self.folder), "PAUSE_AT": self.pattern, "PAUSE_COUNT": str(self.count)}
        return environment | names | {"PYTHONPATH": path}

    def reached(self):
        """Whether a process waits."""
        return (self.folder / "reached").exists()

    def resume(self):
        """Makes the process that waits continue."""
        (self.folder / "resume").open("w").close()
