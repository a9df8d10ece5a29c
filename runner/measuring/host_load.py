"""The use of the host's CPUs while a measurement ran: by its own tiers, by the runner, and by other processes.

The host's totals come from the tiers (a container sees its host's /proc/stat), so that a remote engine is judged by its
own machine. Where that machine is also this one, the runner's own processes are counted apart and others get names.

/proc is read directly: psutil takes twice the time per snapshot (12 ms instead of 6 ms for 100 processes), and the boot
id and the PID namespace would have to come from /proc all the same.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tierserver.messages import StatsResult

_PROC = Path("/proc")
_NAMED = 3
# Less than this of one CPU is not worth a name.
_WORTH_NAMING = 0.02
# A tier is a Python program, whose name is that of its interpreter: of no other process the command line is read.
_INTERPRETER = "python"
# Longer command lines are no tier's, whose module stands at the front.
_MOST_BYTES = 4096


@dataclass(frozen=True)
class Process:
    """One process of this machine; `own` is the runner, its children and the tiers."""

    pid: int
    name: str
    cpu_s: float
    own: bool
    descends: bool


@dataclass(frozen=True)
class Snapshot:
    """The counters of all tiers and the processes of this machine at one moment."""

    tiers: Mapping[str, StatsResult]
    processes: Mapping[int, Process] = field(default_factory=dict)

    @property
    def client(self) -> StatsResult:
        return next(iter(self.tiers.values()))


def host_load(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return the CPUs used between two snapshots, by user; an empty dict where the kernel does not report it.

    Of several machines the one is described whose CPUs others used most: it has disturbed the measurement most.
    """
    # A tier of each machine, the client's first: where no other program was busy, that one is described.
    machines: dict[str, str] = {}
    for name, tier in before.tiers.items():
        if tier.host is not None:
            machines.setdefault(tier.host.boot_id, name)
    loads = [_load_of(name, before, after) for name in machines.values()]
    return max(filter(None, loads), key=lambda load: load["other_cpus"] / load["cpus"], default={})


def _load_of(tier: str, before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return the load of the machine of one tier."""
    stats, later = before.tiers[tier], after.tiers[tier]
    first, last = stats.host, later.host
    # Durations by each machine's own clock: those of two machines may be hours apart.
    duration_s = later.monotonic_s - stats.monotonic_s
    if first is None or last is None or duration_s <= 0:
        return {}
    tiers_s = sum(
        after.tiers[name].cpu_seconds - other.cpu_seconds
        for name, other in before.tiers.items()
        if other.host is not None and other.host.boot_id == first.boot_id
    )
    # The processes of this machine are those of the tiers' machine only if both are one.
    local = first.boot_id == _boot_id()
    own_s = tiers_s + (_runner_s(before, after) if local else 0.0)
    busy_s = last.busy_s - first.busy_s
    return {
        "cpus": first.cpus,
        "duration_s": duration_s,
        "busy_cpus": busy_s / duration_s,
        "own_cpus": own_s / duration_s,
        # The two counters are read at different moments, so a difference may come out below zero.
        "other_cpus": max(0.0, busy_s - own_s) / duration_s,
        "steal_cpus": (last.steal_s - first.steal_s) / duration_s,
        "load_start": stats.load_average[0],
        "load_end": later.load_average[0],
        "others": _others(before, after, duration_s) if local else [],
    }


def processes() -> dict[int, Process]:
    """Return the processes of this machine by id, without those that cannot be read."""
    ticks = os.sysconf("SC_CLK_TCK")
    rows: dict[int, tuple[str, int, float]] = {}
    for name in [entry.name for entry in os.scandir(_PROC)] if _PROC.is_dir() else ():
        if name.isdigit():
            # A process may have any name, brackets and blanks included: its last bracket ends it (proc(5)).
            head, _, tail = _read(f"{_PROC}/{name}/stat").decode(errors="replace").rpartition(")")
            fields = tail.split()
            if fields:
                # User and system time are fields 14 and 15 of proc(5); what follows the bracket begins with field 3.
                rows[int(name)] = (head.partition("(")[2], int(fields[1]), sum(map(int, fields[11:13])) / ticks)
    own = _descendants(rows, os.getpid())
    return {
        pid: Process(pid, name, cpu_s, pid in own or (name.startswith(_INTERPRETER) and _is_tier(pid)), pid in own)
        for pid, (name, _, cpu_s) in rows.items()
    }


def _descendants(rows: Mapping[int, tuple[str, int, float]], root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, (_, parent, _) in rows.items():
        children.setdefault(parent, []).append(pid)
    descendants, unvisited = {root}, [root]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        descendants.update(below)
        unvisited += below
    return descendants


def _is_tier(pid: int) -> bool:
    """Return whether a process is a tier: in a container it is not our descendant, but belongs to the measurement."""
    return b"-m\0tierserver\0" in _read(f"{_PROC}/{pid}/cmdline")


def _read(path: str) -> bytes:
    """Return a file's content; nothing if its process ended after the listing."""
    # Without the layers of `open`, which take longer than the kernel: a snapshot reads two files per process.
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, _MOST_BYTES)
    except OSError:
        return b""
    finally:
        os.close(file)


def _runner_s(before: Snapshot, after: Snapshot) -> float:
    """Return the CPU seconds of the runner and its children without the tiers, which report their own."""
    namespace = _namespace()
    tiers = {tier.pid for tier in before.tiers.values() if tier.pid_namespace == namespace}
    return sum(
        process.cpu_s - before.processes[pid].cpu_s
        for pid, process in after.processes.items()
        if process.descends and pid not in tiers and pid in before.processes
    )


def _others(before: Snapshot, after: Snapshot, duration_s: float) -> Sequence[Mapping[str, Any]]:
    """Return the busiest processes that do not belong to the measurement."""
    used = [
        (process.cpu_s - (before.processes[pid].cpu_s if pid in before.processes else 0.0), process)
        for pid, process in after.processes.items()
        if not process.own
    ]
    busiest = sorted(used, key=lambda pair: -pair[0])[:_NAMED]
    return [
        {"pid": process.pid, "name": process.name, "cpus": cpu_s / duration_s}
        for cpu_s, process in busiest
        if cpu_s / duration_s >= _WORTH_NAMING
    ]


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
