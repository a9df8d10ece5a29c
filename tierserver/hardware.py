"""What the machine under a tier is; in a container the kernel shows the container's host.

`python -m tierserver.facts` prints these facts from inside a tier image.
"""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def cpu_model() -> str:
    """Return the CPU's name, or its architecture where the kernel has no name for it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def has_vnni() -> bool:
    """Return whether the CPU multiplies int8 with 32-bit accumulation (AVX-VNNI, AVX512-VNNI, Arm's dot product)."""
    flags = f"{_cpuinfo('flags')} {_cpuinfo('Features')}".split()
    return any(flag in flags for flag in ("avx_vnni", "avx512_vnni", "asimddp"))


def boot_id() -> str:
    """Return what tells one running kernel from every other; empty where the system has no such thing."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _cpuinfo(field: str) -> str:
    if not _CPUINFO.exists():
        return ""
    for line in _CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
