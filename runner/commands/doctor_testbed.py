"""`runner doctor --testbed NAME`: what each place of a testbed can do for its tier, and what to do about each lack."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from catalog.declaration import Catalog, TestbedSpec, TierPlace, TierSpec
from catalog.units import duration, rate, size
from runner.errors import LaunchError, RunnerError, TierCallError
from runner.host import Host
from runner.launchers.base import Deployment, LinkLimits
from runner.launchers.hosts import TestbedLauncher
from runner.launchers.places import EnginePlace, PlaceAccess, ServerPlace, placed
from runner.launchers.shaping import in_parallel
from runner.measuring.tiers import Scale, resolve_provider, tier_limits
from tierserver.messages import LinkProbe, Probe

_PROBE_S = 60.0
# About so long at the declared rate: enough to see whether a link is of its order, not to measure it.
_LOOK_S = 0.1
_LEAST_BYTES = 100_000


@dataclass(frozen=True)
class PlaceCheck:
    """What one check of a place or a link says; `advice` is empty where nothing is lacking.

    Nothing can be measured on the testbed while a check is `fatal`.
    """

    tier: str
    what: str
    state: str
    advice: str = ""
    fatal: bool = False


@dataclass(frozen=True)
class _Examined:
    """The checks of one place, and the place if it can run its tier."""

    checks: Sequence[PlaceCheck]
    place: EnginePlace | ServerPlace | None = None
    host: Host | None = None


def examine_places(catalog: Catalog, testbed: TestbedSpec, access: PlaceAccess) -> Iterator[PlaceCheck]:
    """Look at every place of a testbed, then at the links between them."""
    places = {name: testbed.tiers[name] for name in catalog.tiers} if testbed.tiers else {}
    # At once, because a host that does not answer takes a while to be given up.
    examined = dict(
        zip(places, in_parallel(lambda name: _examine(catalog, name, places[name], access), places), strict=True)
    )
    for place in examined.values():
        yield from place.checks
    usable = {name: result.place for name, result in examined.items() if result.place is not None}
    if len(usable) < len(places):
        yield PlaceCheck("links", "reached", "not tried", "first make every place answer")
        return
    hosts = {name: result.host for name, result in examined.items() if result.host is not None}
    yield from _links(catalog, TestbedLauncher(usable), hosts)


def _examine(catalog: Catalog, tier: str, declared: TierPlace, access: PlaceAccess) -> _Examined:
    try:
        reached = access.reach(tier, declared)
        place = placed(tier, declared, reached, is_client=tier == catalog.client)
        host = place.host()
    except LaunchError as error:
        said = str(error).removeprefix(f"tier {tier!r}: ")
        return _Examined([PlaceCheck(tier, "place", "not usable", said, fatal=True)])
    checks = [PlaceCheck(tier, "place", _described(place)), *_machine(tier, catalog.tiers[tier], host)]
    return _Examined([*checks, *_limits(tier, place)], place, host)


def _described(place: EnginePlace | ServerPlace) -> str:
    described = place.describe()
    if isinstance(place, ServerPlace):
        return f"tier server {described.version} at {place.server.url}"
    address = f", other tiers reach it at {place.address}" if place.address else ""
    return f"Docker {described.version} at {place.on.engine.address}{address}"


def _machine(tier: str, declared: TierSpec, host: Host) -> Iterator[PlaceCheck]:
    lacks = []
    if declared.cpus > host.cpu_count:
        lacks.append(f"the tier declares {declared.cpus:g} CPUs: declare fewer, or name a larger host")
    if declared.memory_bytes > host.memory_bytes:
        lacks.append(f"the tier declares {size(declared.memory_bytes)}: declare less, or name a larger host")
    machine = f"{host.cpu_count} × {host.cpu_model} ({host.architecture}), {size(host.memory_bytes)}"
    yield PlaceCheck(tier, "machine", machine, "; ".join(lacks), fatal=bool(lacks))
    slow = "" if host.vnni else "int8 may be slower than float there, and weights get seven bits"
    yield PlaceCheck(tier, "int8", "VNNI or dot product" if host.vnni else "no", slow)
    yield _provider(tier, declared, host)


def _provider(tier: str, declared: TierSpec, host: Host) -> PlaceCheck:
    try:
        provider = resolve_provider(declared.provider, host)
    except RunnerError as error:
        return PlaceCheck(tier, "provider", "none", str(error), fatal=True)
    first = declared.provider[0]
    advice = "" if provider == first else f"{first} is declared first: install ONNX Runtime with it, or a tier server"
    return PlaceCheck(tier, "provider", f"{provider}, ONNX Runtime {host.onnxruntime}", advice)


def _limits(tier: str, place: EnginePlace | ServerPlace) -> Iterator[PlaceCheck]:
    if isinstance(place, ServerPlace):
        yield PlaceCheck(tier, "limits", "threads", "a tier server enforces neither CPU quota nor memory of a tier")
        return
    info = place.on.engine.info
    absent = [name for name, key in {"CPU": "CpuCfsQuota", "memory": "MemoryLimit"}.items() if not info.get(key)]
    advice = (
        f"the kernel there has no control group of {' and '.join(absent)}; on a Raspberry Pi, add "
        "`cgroup_enable=memory` to the boot command line"
    )
    enforced = " and ".join(name for name in ("CPU", "memory") if name not in absent) or "none"
    yield PlaceCheck(tier, "limits", enforced, advice if absent else "")


def _links(catalog: Catalog, launcher: TestbedLauncher, hosts: Mapping[str, Host]) -> Iterator[PlaceCheck]:
    """Start a tier at each place and probe every link, which a firewall may be in the way of."""
    scale = Scale(Fraction(1))
    limits = {name: tier_limits(catalog, name, scale, hosts[name]) for name in catalog.tiers}
    # A host that is too small is a lack of its own, and its links can be looked at all the same.
    tiers = [replace(tier, cpus=min(tier.cpus, hosts[name].cpu_count)) for name, tier in limits.items()]
    links = [_link(catalog, name) for name in catalog.links]
    try:
        with launcher.launch(tiers, links, {}) as deployment:
            yield from [_probed(deployment, link) for link in links]
    except (LaunchError, TierCallError) as error:
        yield PlaceCheck(getattr(error, "tier", None) or "links", "start", "failed", str(error), fatal=True)


def _link(catalog: Catalog, name: str) -> LinkLimits:
    declared = catalog.links[name]
    upstream, downstream = catalog.topology.link_ends(name)
    return LinkLimits(name, upstream, downstream, declared.up_bit_per_s, declared.down_bit_per_s, real=True)


def _probed(deployment: Deployment, link: LinkLimits) -> PlaceCheck:
    url = deployment.url(link.upstream, link.downstream)
    large_bytes = _LEAST_BYTES + int(min(link.up_bit_per_s, link.down_bit_per_s) * _LOOK_S / 8)
    command = Probe(url, small_bytes=large_bytes // 10, large_bytes=large_bytes, repetitions=1)
    try:
        answer = deployment.tiers[link.upstream].call(command.to_json(), deadline_s=_PROBE_S)
    except TierCallError as error:
        advice = (
            f"{link.upstream} does not reach {url} ({error.message}): open that port on the host of {link.downstream} "
            "(`port:` of its place fixes it), or name another `address`"
        )
        return PlaceCheck(link.name, "link", "not reached", advice, fatal=True)
    probe = LinkProbe.from_json(answer)
    rates = f"about {rate(probe.up.rate_bit_per_s)} up, {rate(probe.down.rate_bit_per_s)} down"
    return PlaceCheck(link.name, "link", f"round trip {duration(probe.rtt_s)}, {rates}")
