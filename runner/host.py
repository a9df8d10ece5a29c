"""What this machine is: the facts that evidence measured here depends on."""

import functools
import hashlib
import os
import platform
import uuid
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True)
class Host:
    """The machine under the tiers; `fingerprint` tells two machines apart without naming them."""

    fingerprint: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int
    kernel: str
    vnni: bool

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def _cpuinfo(field: str) -> str:
    if not _CPUINFO.exists():
        return ""
    for line in _CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


@functools.cache
def has_vnni() -> bool:
    """Whether the CPU multiplies int8 with 32-bit accumulation (AVX-VNNI, AVX512-VNNI, or Arm's dot product)."""
    flags = f"{_cpuinfo('flags')} {_cpuinfo('Features')}".split()
    return any(flag in flags for flag in ("avx_vnni", "avx512_vnni", "asimddp"))


def usable_cpus() -> int:
    """CPUs this process may run on (a container's affinity mask counts, `os.cpu_count` does not know it)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def this_host() -> Host:
    """Read the facts once per process."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpu_model = _cpuinfo("model name") or platform.processor() or platform.machine()
    machine = _MACHINE_ID.read_text().strip() if _MACHINE_ID.exists() else ""
    identity = f"{machine or uuid.getnode()}|{cpu_model}|{usable_cpus()}"
    return Host(
        fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:16],
        cpu_model=cpu_model,
        cpu_count=usable_cpus(),
        memory_bytes=memory,
        kernel=platform.release(),
        vnni=has_vnni(),
    )


def versions() -> dict[str, str]:
    """Versions of what transforms and executes models; they enter the content keys."""
    return {name: version(name) for name in ("onnx", "onnxruntime", "numpy", "pillow")}
