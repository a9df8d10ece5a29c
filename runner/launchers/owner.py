"""Who started a tier: written on everything a launcher creates, so that cleaning spares what a live runner uses."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from runner.host import this_host

_HAS_PROC = Path("/proc/self/stat").exists()


def start_of(pid: int) -> str | None:
    """When a process started, in whatever unit the system counts; None when there is no such process."""
    if not _HAS_PROC:
        return "-".join(_ps(pid, "lstart").split()) or None
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def command_line(pid: int) -> str:
    """The arguments of a process, separated by blanks; empty when there is no such process."""
    if not _HAS_PROC:
        return _ps(pid, "args")
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _ps(pid: int, field: str) -> str:
    return subprocess.run(["ps", "-o", f"{field}=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


@dataclass(frozen=True)
class Owner:
    """A process on a host; a process id alone may have been given to another process since."""

    host: str
    pid: int
    start: str

    @classmethod
    def current(cls) -> "Owner":
        """This process."""
        return cls(this_host().fingerprint, os.getpid(), start_of(os.getpid()) or "")

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """Read what `str` wrote; None for anything else."""
        host, _, rest = text.partition(":")
        pid, _, start = rest.partition(":")
        return cls(host, int(pid), start) if host and pid.isdigit() and start else None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}"

    @property
    def is_elsewhere(self) -> bool:
        """Whether the owner ran on another machine, where nobody here can tell if it still lives."""
        return self.host != this_host().fingerprint

    @property
    def is_alive(self) -> bool:
        """Whether the very process still runs on this machine."""
        return not self.is_elsewhere and start_of(self.pid) == self.start
