"""What the kernel counted for this tier: CPU time, memory, threads, throttling."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from tierserver.messages import CgroupStats, StatsResult

# cgroup v2, then the two spellings of v1; in a container each is the tier's own.
_CPU_STAT = ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/cpu,cpuacct/cpu.stat")


def read_stats() -> StatsResult:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return StatsResult(
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=usage.ru_maxrss * 1024,
        threads=len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").is_dir() else 0,
        load_average=os.getloadavg(),
        cgroup=_cgroup(),
    )


def parse_cpu_stat(text: str) -> CgroupStats | None:
    """The counters of a cpu.stat file of cgroup v1 or v2; None where there is no quota controller."""
    pairs = (line.split() for line in text.splitlines())
    values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    if "nr_periods" not in values:
        return None
    throttled_s = values["throttled_usec"] / 1e6 if "throttled_usec" in values else values["throttled_time"] / 1e9
    return CgroupStats(values["nr_periods"], values["nr_throttled"], throttled_s)


def _cgroup() -> CgroupStats | None:
    for path in map(Path, _CPU_STAT):
        try:
            found = parse_cpu_stat(path.read_text())
        except (OSError, KeyError, ValueError):
            continue
        if found is not None:
            return found
    return None
