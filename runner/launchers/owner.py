"""The process that started a tier: noted on everything a launcher creates, so that cleaning spares live runners."""

import functools
import os
import re
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from runner.host import this_host

_HAS_PROC = Path("/proc/self/stat").exists()
_PID_NAMESPACE = Path("/proc/self/ns/pid")
# Plain digits: `int` reads others as well, and `isdigit` accepts even such as `²`, which `int` does not read.
_PROCESS_ID = re.compile("[1-9][0-9]{0,9}")


@functools.cache
def _here() -> str:
    """Return where process ids are valid: this machine, and in a container the container's own numbering."""
    # The inode number identifies a namespace (namespaces(7)).
    namespace = _PID_NAMESPACE.stat().st_ino if _PID_NAMESPACE.exists() else 0
    return f"{this_host().fingerprint}.{namespace}"


def start_of(pid: int) -> str | None:
    """Return when a process started, in the system's own unit; None if there is no such process."""
    if not _HAS_PROC:
        return "-".join(_ps(pid, "lstart").split()) or None
    try:
        # A process may give itself a name of any bytes.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in brackets may hold blanks and brackets, so the fields are counted from the last bracket (proc(5)).
    state, *rest = text.rpartition(")")[2].split()
    # A zombie has ended. `rest` begins with field 4, so that its 18 is field 22, the start in ticks since boot.
    return None if state in "ZX" else rest[18]


def command_line(pid: int) -> str:
    """Return the arguments of a process, separated by blanks; empty if there is no such process."""
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
    """A process of a host or container; a process id alone may have been given to another process since."""

    host: str
    pid: int
    start: str

    @classmethod
    def current(cls) -> "Owner":
        """Return this process as an owner."""
        return cls(_here(), os.getpid(), start_of(os.getpid()) or "")

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """Read what `str` wrote; None for anything else."""
        host, _, rest = text.partition(":")
        pid, _, start = rest.partition(":")
        return cls(host, int(pid), start) if host and _PROCESS_ID.fullmatch(pid) and start else None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}"

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the owner ran on another machine or in a container, where it cannot be checked from here."""
        return self.host != _here()

    @property
    def is_alive(self) -> bool:
        """Return whether exactly this process still runs on this machine."""
        return not self.is_elsewhere and start_of(self.pid) == self.start

    @property
    def is_dead(self) -> bool:
        """Return whether the process is known to have ended."""
        return not self.is_elsewhere and not self.is_alive


def owned_name(prefix: str) -> str:
    """Return a name for a file or directory of this process, which marks its owner from the start."""
    return f"{prefix}{Owner.current()}-{uuid.uuid4().hex[:8]}"


def is_abandoned(name: str, prefix: str) -> bool:
    """Return whether the owner in such a name is known to be dead; a name without an owner is not abandoned."""
    owner = Owner.parse(name.removeprefix(prefix).rpartition("-")[0])
    return owner is not None and owner.is_dead
