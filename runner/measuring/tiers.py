"""The limits of this run's tiers and links: scale, threads, providers, and whether the host can provide them."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from catalog.declaration import Catalog, Strategy
from catalog.units import size
from runner.errors import HostTooSmallError, RunnerError
from runner.host import Host
from runner.launchers.base import Launcher, LinkLimits, TierLimits

# The names that a catalog may write, and ONNX Runtime's.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class Scale:
    """The common factor on all CPUs and links, so that compute and transmission keep their ratio."""

    factor: Fraction

    @classmethod
    def parse(cls, text: str) -> "Scale":
        """Read `1`, `1/8` or `0.125`; raises RunnerError for anything outside (0, 1]."""
        try:
            factor = Fraction(text)
        except (ValueError, ZeroDivisionError) as error:
            raise RunnerError(f"--scale takes a fraction such as 1/8, got {text!r}") from error
        if not 0 < factor <= 1:
            raise RunnerError(f"--scale takes a fraction above 0 and at most 1, got {text!r}")
        return cls(factor)

    def __str__(self) -> str:
        return str(self.factor)


def threads_for(cpus: float) -> int:
    """Return the intra-op threads for a CPU quota: the quota rounded up, at least one."""
    # Rounded up: a thread less would leave a part of the quota unused, one more only waits for it.
    return max(1, math.ceil(cpus))


def resolve_provider(declared: Sequence[str], host: Host) -> str:
    """Return the first declared execution provider that the tiers' host has; the CPU is always there."""
    for name in declared:
        if PROVIDERS.get(name) in host.providers:
            return name
    raise RunnerError(f"{host.label} has none of the declared providers {', '.join(declared)}; add `cpu` to the list")


def onnxruntime_provider(name: str) -> str:
    """Return ONNX Runtime's name of a declared provider."""
    return PROVIDERS[name]


def check_host(catalog: Catalog, host: Host, scale: Scale, tiers: Collection[str] | None = None) -> None:
    """Refuse a host smaller than the declared tiers (or those of them that are on it), with the scale that would fit.

    Raises
    ------
    HostTooSmallError
        Naming the tier, what it declares, what the host has, and the `--scale` to try.
    """
    declared = {name: catalog.tiers[name] for name in (catalog.tiers if tiers is None else tiers)}
    widest = max(declared, key=lambda name: declared[name].cpus)
    cpus = declared[widest].cpus
    if cpus * scale.factor > host.cpu_count:
        denominator = 2
        # Halved until it fits: powers of two are the factors that a person can still compare in their head.
        while cpus / denominator > host.cpu_count:
            denominator *= 2
        scaled = f"Try `--scale 1/{denominator}`: all CPUs and all links at that factor, results marked as emulated."
        raise HostTooSmallError(
            f"tier {widest!r} declares {cpus:g} CPUs (× scale {scale}), {host.label} has {host.cpu_count}. "
            f"{'Declare fewer, or name a larger host for it.' if host.place else scaled}"
        )
    largest = max(declared, key=lambda name: declared[name].memory_bytes)
    memory = declared[largest].memory_bytes
    # Below scale 1 memory is capped instead: those results are marked as emulated.
    if memory > host.memory_bytes and scale.factor == 1:
        way_out = "or name a larger host for it" if host.place else "or emulate with `--scale 1/2`, which caps memory"
        raise HostTooSmallError(
            f"tier {largest!r} declares {size(memory)} of memory, {host.label} has "
            f"{size(host.memory_bytes)}. Declare less, {way_out}."
        )


def check_hosts(catalog: Catalog, hosts: Mapping[str, Host], scale: Scale, *, real_links: bool) -> None:
    """Refuse hosts that are smaller than their tiers, and a scale that real links do not have; raises RunnerError."""
    if real_links and scale.factor != 1:
        raise RunnerError(f"--scale {scale} shrinks CPUs and links together, and the links of this testbed are real")
    for host in dict.fromkeys(hosts.values()):
        check_host(catalog, host, scale, [name for name in hosts if hosts[name] == host])


def check_delays(catalog: Catalog, launcher: Launcher) -> None:
    """Refuse a declared delay that the launcher cannot make; raises RunnerError."""
    delayed = [name for name, link in catalog.links.items() if link.delay_s]
    if delayed and (refusal := launcher.delay_refusal()):
        raise RunnerError(
            f"link {delayed[0]!r} declares a delay, which launcher {launcher.name!r} cannot make: {refusal}. "
            "Try `--launcher process`, or remove `delay`, so that results do not claim what was not measured"
        )


def tier_limits(catalog: Catalog, name: str, scale: Scale, host: Host) -> TierLimits:
    """Scale a declared tier; memory is not scaled, only capped at what the tier's host has."""
    declared = catalog.tiers[name]
    cpus = float(declared.cpus * scale.factor)
    return TierLimits(name, cpus, min(declared.memory_bytes, host.memory_bytes), threads_for(cpus))


def route_tiers(
    catalog: Catalog, strategy: Strategy, scale: Scale, host_of: Callable[[str], Host]
) -> tuple[TierLimits, ...]:
    """Return the tiers that a strategy's requests pass, the client's first; `host_of` returns a tier's machine."""
    return tuple(tier_limits(catalog, name, scale, host_of(name)) for name in strategy.route)


def route_links(catalog: Catalog, strategy: Strategy, scale: Scale, *, real: bool = False) -> tuple[LinkLimits, ...]:
    """Scale the links along the route: a delay grows as the rates shrink, so that ratios hold."""
    limits = []
    for name, upstream, downstream in zip(strategy.links, strategy.route[:-1], strategy.route[1:], strict=True):
        declared = catalog.links[name]
        limits.append(
            LinkLimits(
                name=name,
                upstream=upstream,
                downstream=downstream,
                up_bit_per_s=round(declared.up_bit_per_s * scale.factor),
                down_bit_per_s=round(declared.down_bit_per_s * scale.factor),
                delay_s=float(declared.delay_s / scale.factor),
                real=real,
            )
        )
    return tuple(limits)
