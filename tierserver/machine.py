"""What the kernel counted for this tier and its host: CPU time and throttling, memory, waiting, clocks.

Every value is a total since some start: the difference of two readings is what happened in between. A value that the
kernel does not report is None.

`python -m tierserver.machine` prints what a tier of this image, on this machine, would run on, as one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from tierserver.messages import CgroupStats, HostStats, MemoryStats, StatsResult, TierFacts

# cgroup v2, then the two spellings of v1; in a container each is the tier's own.
_CPU_STAT = ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/cpu,cpuacct/cpu.stat")
_V2 = Path("/sys/fs/cgroup")
_V1_MEMORY = Path("/sys/fs/cgroup/memory")
# A tier that was restarted unnoticed answers with another one.
_INSTANCE = uuid.uuid4().hex


def read_stats() -> StatsResult:
    """Read every counter."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return StatsResult(
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        # getrusage(2) counts kibibytes on Linux.
        peak_rss_bytes=peak_rss_bytes() or usage.ru_maxrss * 1024,
        threads=len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").is_dir() else 0,
        load_average=os.getloadavg(),
        cgroup=_cgroup(),
        instance=_INSTANCE,
        pid=os.getpid(),
        pid_namespace=_link("/proc/self/ns/pid"),
        wall_s=time.time(),
        monotonic_s=time.monotonic(),
        waited_s=_waited_s(),
        major_faults=usage.ru_majflt,
        memory=_memory(),
        host=_host(),
    )


def parse_cpu_stat(text: str) -> CgroupStats | None:
    """Read the counters of a cpu.stat file of cgroup v1 or v2; None if there is no quota controller."""
    values = _pairs(text)
    if "nr_periods" not in values:
        return None
    # cgroup v2 counts microseconds, v1 nanoseconds.
    throttled_s = values["throttled_usec"] / 1e6 if "throttled_usec" in values else values["throttled_time"] / 1e9
    return CgroupStats(values["nr_periods"], values["nr_throttled"], throttled_s)


def parse_memory_v2(events: str, peak: str | None) -> MemoryStats:
    """Read memory.events and memory.peak: hits of the limit, kills, and the peak."""
    values = _pairs(events)
    # `max` counts how often the limit was about to be exceeded, which reclaiming may still have prevented.
    return MemoryStats(values["max"], values.get("oom_kill", 0), None if peak is None else int(peak))


def parse_memory_v1(failures: str, oom_control: str, peak: str | None) -> MemoryStats:
    """Read memory.failcnt, memory.oom_control and memory.max_usage_in_bytes."""
    return MemoryStats(int(failures), _pairs(oom_control).get("oom_kill", 0), None if peak is None else int(peak))


def parse_schedstat(texts: Iterable[str]) -> float:
    """Sum the seconds that threads were ready but not running, from their schedstat (run ns, wait ns, slices)."""
    return sum(int(text.split()[1]) for text in texts) / 1e9


def parse_host_stat(text: str, *, ticks_per_s: int) -> tuple[float, float]:
    """Return the CPU seconds of all CPUs that /proc/stat counts as busy, and those stolen by the hypervisor."""
    fields = [int(field) for field in text.split("\n", 1)[0].split()[1:]]
    # The two skipped are idle and iowait; guest time, which follows, is part of user already. See proc(5).
    user, nice, system, _, _, irq, softirq, steal = (*fields, *[0] * 8)[:8]
    return (user + nice + system + irq + softirq) / ticks_per_s, steal / ticks_per_s


def peak_rss_bytes() -> int | None:
    """Read the peak of this program alone: that of getrusage is inherited from the process that started it."""
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        # proc(5) writes kB and means 1024 bytes.
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _pairs(text: str) -> dict[str, int]:
    """Parse lines of the form `name number`; skip other lines."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _cgroup() -> CgroupStats | None:
    for path in map(Path, _CPU_STAT):
        try:
            stats = parse_cpu_stat(path.read_text())
        except (OSError, KeyError, ValueError):
            continue
        if stats is not None:
            return stats
    return None


def _memory() -> MemoryStats | None:
    try:
        if (_V2 / "memory.events").is_file():
            return parse_memory_v2((_V2 / "memory.events").read_text(), _read(_V2 / "memory.peak"))
        failures, oom_control = (_V1_MEMORY / "memory.failcnt").read_text(), _V1_MEMORY / "memory.oom_control"
        return parse_memory_v1(failures, oom_control.read_text(), _read(_V1_MEMORY / "memory.max_usage_in_bytes"))
    except (OSError, KeyError, ValueError):
        return None


def _waited_s() -> float | None:
    try:
        # A thread that ends between the listing and the reading makes the value unknown rather than wrong.
        return parse_schedstat(path.read_text() for path in Path("/proc/self/task").glob("*/schedstat"))
    except (OSError, ValueError, IndexError):
        return None


def _host() -> HostStats | None:
    """Read the host's own counters: /proc/stat and the boot id are the same inside a container."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        busy_s, steal_s = parse_host_stat(Path("/proc/stat").read_text(), ticks_per_s=os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return None
    return HostStats(boot_id, os.cpu_count() or 1, busy_s, steal_s)


def _read(path: Path) -> str | None:
    """Read a file that some kernels do not have."""
    try:
        return path.read_text()
    except OSError:
        return None


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


_CPUINFO = Path("/proc/cpuinfo")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")


def cpu_model() -> str:
    """Return the CPU's name, or its architecture where the kernel has no name for it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def has_vnni() -> bool:
    """Return whether the CPU multiplies int8 with 32-bit accumulation (AVX-VNNI, AVX512-VNNI, Arm's dot product)."""
    flags = f"{_cpuinfo('flags')} {_cpuinfo('Features')}".split()
    return any(flag in flags for flag in ("avx_vnni", "avx512_vnni", "asimddp"))


def boot_id() -> str:
    """Return the identifier of the running kernel's boot; empty if the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def usable_cpus() -> int:
    """Return the CPUs that this process may run on: `os.cpu_count` does not know a container's affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_bytes() -> int:
    """Return the machine's memory; 0 where the system does not report it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def machine_digest() -> str:
    """Return a digest of the machine's identifier, which is stored in its place; empty if there is none."""
    identifier = _read(_MACHINE_ID)
    return hashlib.sha256(f"tierserver|{identifier.strip()}".encode()).hexdigest()[:16] if identifier else ""


def _cpuinfo(field: str) -> str:
    if not _CPUINFO.exists():
        return ""
    for line in _CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def read_facts() -> TierFacts:
    """Read the facts of the machine and of the engine in this process."""
    # Imported here: a runner reads the machine's counters without loading the engine.
    from tierserver.engine import VERSION, available_providers

    return TierFacts(
        cpu_model=cpu_model(),
        vnni=has_vnni(),
        boot_id=boot_id(),
        onnxruntime=VERSION,
        providers=available_providers(),
        architecture=platform.machine(),
        cpus=usable_cpus(),
        memory_bytes=physical_bytes(),
        kernel=platform.release(),
        machine=machine_digest(),
    )


if __name__ == "__main__":
    print(json.dumps(read_facts().to_json()))
