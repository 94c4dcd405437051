"""The process that holds a lock, and whether it is alive."""

import dataclasses
import datetime
import os
import pathlib
import socket
import time
import uuid


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        token: random and unique to each lock.
        host: name of the machine.
        pid: process id.
        machine: identifies the boot and the PID namespace of the machine; '' if unknown.
        started: start time of the process in ticks since boot, which distinguishes it from later ones with its id.
        since: when the lock was acquired, in seconds since the epoch.
    """

    token: str
    host: str
    pid: int
    machine: str
    started: str
    since: float

    @classmethod
    def this_process(cls) -> "Owner":
        """This process, with a new token."""
        pid = os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, this_machine(), process_start(pid), time.time())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {utc(self.since)}"

    @property
    def is_local(self) -> bool:
        """Whether `is_alive` can be checked on this machine."""
        return bool(self.machine and self.started) and self.machine == this_machine() and not _is_hidden(self.pid)

    @property
    def is_alive(self) -> bool:
        """Whether the process is running. Valid only if `is_local`."""
        return process_start(self.pid) == self.started


def utc(seconds: float) -> str:
    """Formats seconds since the epoch as a UTC date and time."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def this_machine() -> str:
    """Identifies the boot and the PID namespace of this machine; '' if the system does not provide them."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_hidden(pid: int) -> bool:
    """Whether the process is running but hidden from this user (/proc mounted with hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not process_start(pid)
    except (OSError, OverflowError):
        return False
    return False


def process_start(pid: int) -> str:
    """Start time of a process in ticks since boot; '' if it is not running or the system does not provide it."""
    try:
        # The command may contain any character, so parse after its last bracket: state, 18 fields, start time.
        state, *fields = pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "" if state in (b"Z", b"X") else fields[18].decode()
    except (OSError, ValueError, IndexError):
        return ""
