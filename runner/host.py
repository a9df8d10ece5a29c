"""The machine under the tiers: the facts that evidence measured there depends on."""

import functools
import hashlib
import os
import platform
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tierserver.machine import boot_id, cpu_model, has_vnni
from tierserver.messages import TierFacts

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
    onnxruntime: str
    providers: tuple[str, ...]
    remote: bool = False
    architecture: str = ""
    # Where it is, as the catalog declares it; empty where there is one machine for all tiers.
    place: str = ""

    @property
    def label(self) -> str:
        """The machine in a message."""
        if self.place:
            return self.place
        return "the Docker engine's host" if self.remote else "this host"

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def usable_cpus() -> int:
    """Return the CPUs that this process may run on: `os.cpu_count` does not know a container's affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def this_host() -> Host:
    """Read the facts once per process."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine = _MACHINE_ID.read_text().strip() if _MACHINE_ID.exists() else ""
    model = cpu_model()
    # Imported here: only what plans or measures asks which providers there are.
    import onnxruntime

    return Host(
        # Some containers have no machine id; the network card's address takes its place.
        fingerprint=_fingerprint(machine or str(uuid.getnode()), model, usable_cpus()),
        cpu_model=model,
        cpu_count=usable_cpus(),
        memory_bytes=memory,
        # Recorded, but no part of the fingerprint: an update of the kernel is no other machine.
        kernel=platform.release(),
        vnni=has_vnni(),
        onnxruntime=versions()["onnxruntime"],
        providers=tuple(onnxruntime.get_available_providers()),
        architecture=platform.machine(),
    )


def host_of_engine(info: Mapping[str, Any], facts: TierFacts, *, place: str = "") -> Host:
    """Return the machine under a container engine, from the engine's description and a tier's report.

    `place` is that of an engine which a testbed names; it has an environment of its own, wherever it is.

    For an engine of this machine that is `this_host()` with the tier image's ONNX Runtime, so that evidence has one key
    whether its tiers were processes or containers. The boot id decides that: two machines may have the same name,
    hardware and machine id (clones of one disk), and a local socket may lead to another machine.
    """
    here = this_host()
    there = Host(
        fingerprint=_fingerprint(str(info.get("ID") or info.get("Name", "")), facts.cpu_model, _cpus(info)),
        cpu_model=facts.cpu_model,
        cpu_count=_cpus(info),
        memory_bytes=int(info.get("MemTotal", 0)),
        kernel=str(info.get("KernelVersion", "")),
        vnni=facts.vnni,
        onnxruntime=facts.onnxruntime,
        providers=facts.providers,
        remote=True,
        architecture=str(info.get("Architecture", "")),
        place=place,
    )
    if place:
        return there
    # This process may be limited to some CPUs of its machine, which the engine is not.
    same_cpus = there.cpu_count in (here.cpu_count, os.cpu_count())
    if facts.boot_id and facts.boot_id == boot_id() and same_cpus and _hardware(there) == _hardware(here):
        return replace(here, onnxruntime=facts.onnxruntime, providers=facts.providers)
    return there


def _cpus(info: Mapping[str, Any]) -> int:
    return max(1, int(info.get("NCPU", 1)))


def _hardware(host: Host) -> tuple[object, ...]:
    return host.cpu_model, host.memory_bytes, host.kernel, host.vnni


def _fingerprint(machine: str, model: str, cpus: int) -> str:
    # Hashed and cut: it goes into every export, where a machine id or a MAC address has no place.
    return hashlib.sha256(f"{machine}|{model}|{cpus}".encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Return the versions of what transforms and executes models; they enter the content keys."""
    return {name: _version(name) for name in ("onnx", "onnxruntime", "numpy", "pillow")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # The runtime's build for GPUs is another package with the same module.
        return version(f"{package}-gpu")
