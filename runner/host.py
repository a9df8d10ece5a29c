"""The machine under the tiers: the facts that evidence measured there depends on."""

import functools
import hashlib
import os
import platform
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from catalog.keys import content_key
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
        # Without the place, which names machines and users: what is stored here goes into every export.
        return {name: value for name, value in asdict(self).items() if name != "place"}

    @property
    def kind(self) -> dict[str, object]:
        """What machines of one kind have in common, as far as a measurement depends on it."""
        # Not the memory: boards of one kind reserve different amounts of it.
        return {
            "cpu_model": self.cpu_model,
            "cpu_count": self.cpu_count,
            "architecture": self.architecture,
            "vnni": self.vnni,
            "onnxruntime": self.onnxruntime,
            "providers": list(self.providers),
        }


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
    identity = engine_identity(info) if place else str(info.get("ID") or info.get("Name", ""))
    there = Host(
        fingerprint=_fingerprint(identity, facts.cpu_model, _cpus(info)),
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


def host_of_server(facts: TierFacts, *, place: str) -> Host:
    """Return the machine under a tier server, from its own report."""
    return Host(
        fingerprint=_fingerprint(facts.machine or place, facts.cpu_model, facts.cpus),
        cpu_model=facts.cpu_model,
        cpu_count=max(1, facts.cpus),
        memory_bytes=facts.memory_bytes,
        kernel=facts.kernel,
        vnni=facts.vnni,
        onnxruntime=facts.onnxruntime,
        providers=facts.providers,
        remote=True,
        architecture=facts.architecture,
        place=place,
    )


def engine_identity(info: Mapping[str, Any]) -> str:
    """Return what tells an engine from others, out of its description."""
    # Before version 23 all engines of a machine have the same id, and so have clones of its disk.
    return " ".join(str(info.get(key, "")) for key in ("ID", "Name", "DockerRootDir"))


def environment_host(hosts: Mapping[str, Host], *, replicas: str | None = None, real_links: bool = False) -> Host:
    """Return the machine that an environment is of: that of all tiers, or all machines of a testbed in one.

    Its fingerprint changes with each tier's machine, with the tiers that are there, and where links are real. Testbeds
    of one `replicas` class whose machines are of one kind have the same.
    """
    distinct = list({(host.fingerprint, host.onnxruntime): host for host in hosts.values()}.values())
    if len(distinct) == 1 and not real_links:
        return distinct[0] if replicas is None else replace(distinct[0], fingerprint=_class(replicas, distinct[0].kind))
    tiers: dict[str, object] = {
        name: [host.fingerprint, host.onnxruntime] if replicas is None else host.kind for name, host in hosts.items()
    }
    return Host(
        fingerprint=_class(replicas, {"links": "real" if real_links else "emulated", "tiers": tiers}),
        cpu_model=_joined(host.cpu_model for host in distinct),
        cpu_count=sum(host.cpu_count for host in distinct),
        memory_bytes=sum(host.memory_bytes for host in distinct),
        kernel=_joined(host.kernel for host in distinct),
        vnni=all(host.vnni for host in distinct),
        onnxruntime=_joined(host.onnxruntime for host in distinct),
        providers=tuple(name for name in distinct[0].providers if all(name in host.providers for host in distinct)),
        remote=True,
        architecture=_joined(host.architecture for host in distinct),
        place="the testbed",
    )


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(text for text in texts if text))


def _class(replicas: str | None, machines: Mapping[str, object]) -> str:
    """Return the fingerprint of several machines, or of a class of them."""
    return content_key({"replicas": replicas, "machines": machines})[:16]


def _cpus(info: Mapping[str, Any]) -> int:
    return max(1, int(info.get("NCPU", 1)))


def _hardware(host: Host) -> tuple[object, ...]:
    return host.cpu_model, host.memory_bytes, host.kernel, host.vnni


def _fingerprint(machine: str, model: str, cpus: int) -> str:
    # Hashed and cut: it goes into every export, where a machine id or a MAC address has no place.
    return hashlib.sha256(f"{machine}|{model}|{cpus}".encode()).hexdigest()[:16]


def machine_facts() -> dict[str, object]:
    """Return what of this machine enters a fingerprint or a choice of operators, without loading a runtime."""
    machine = _MACHINE_ID.read_text().strip() if _MACHINE_ID.exists() else ""
    own = _fingerprint(machine or str(uuid.getnode()), cpu_model(), usable_cpus())
    # An engine on this machine is known by its boot.
    return {"machine": own, "vnni": has_vnni(), "kernel": platform.release(), "boot": boot_id()}


def versions() -> dict[str, str]:
    """Return the versions of what transforms and executes models; they enter the content keys."""
    return {name: _version(name) for name in ("onnx", "onnxruntime", "numpy", "pillow")}


@functools.cache
def _version(package: str) -> str:
    """Return the version of an installed package; kept, as every strategy asks and files are parsed for it."""
    try:
        return version(package)
    except PackageNotFoundError:
        # The runtime's build for GPUs is another package with the same module.
        return version(f"{package}-gpu")
