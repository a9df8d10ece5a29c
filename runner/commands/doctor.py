"""`runner doctor`: what the tiers' machine and this one can do, and for each lack what to do about it.

With `--testbed NAME`: what each place of a testbed can do for its tier, and each link.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from catalog.console import open_table
from catalog.declaration import Catalog, TestbedSpec, TierPlace, TierSpec
from catalog.declaration.schema import LOCAL
from catalog.units import duration, rate, size
from runner.commands.terminal import CatalogOption, JsonOption, RunnerSettings, example, out, print_json
from runner.errors import EngineUnavailableError, LaunchError, RunnerError, TierCallError
from runner.host import Host, this_host
from runner.launchers.base import Deployment, LinkLimits
from runner.launchers.hosts import EnginePlace, PlaceAccess, ServerPlace, TestbedLauncher, placed
from runner.launchers.select import Selection, launcher_of, select_launcher
from runner.launchers.shaping import in_parallel
from runner.measuring.tiers import Scale, resolve_provider, tier_limits
from tierserver.messages import LinkProbe, Probe

# What the demo's three tiers want (strategies.yaml).
_CPUS = 2
_MEMORY_BYTES = 6 << 30
_DISK_BYTES = 2 << 30


@dataclass(frozen=True)
class MachineCheck:
    """What one check of the machine says; `advice` is empty where nothing is lacking."""

    what: str
    state: str
    advice: str = ""


@dataclass(frozen=True)
class _Engine:
    """The checks of the container engine, and the machine on which tiers would run."""

    checks: tuple[MachineCheck, ...]
    host: Host
    place: str = "this machine"


def examine(place: str = LOCAL) -> Iterator[MachineCheck]:
    """Look at everything that a fill may need; nothing is changed but the tier image being built."""
    engine = _engine(place)
    host = engine.host
    yield MachineCheck("machine of the tiers", engine.place, _REMOTE if host.remote else "")
    few = "" if host.cpu_count >= _CPUS else f"tiers of up to {_CPUS} CPUs need --scale, e.g. --scale 1/2"
    yield MachineCheck("CPUs", f"{host.cpu_count} × {host.cpu_model}", few)
    low = "" if host.memory_bytes >= _MEMORY_BYTES else "declare tiers of less memory"
    yield MachineCheck("memory", size(host.memory_bytes), low)
    slow = "" if host.vnni else "int8 may be slower than float there; read quantized latencies as that machine's alone"
    yield MachineCheck("int8 (VNNI)", "yes" if host.vnni else "no", slow)
    gpu = "CUDAExecutionProvider" in host.providers
    yield MachineCheck("GPU (CUDA)", "yes" if gpu else "no", "" if gpu else _NO_GPU)
    yield _disk()
    yield from engine.checks


_REMOTE = "CPUs, memory, int8 and GPU are that machine's; disk, models and artifacts are this one's"
_NO_GPU = "tiers with `provider: [cuda, cpu]` run on the CPU; with a GPU, replace onnxruntime by onnxruntime-gpu"


def _disk() -> MachineCheck:
    free = shutil.disk_usage(Path.cwd()).free
    advice = "" if free >= _DISK_BYTES else "free some: artifacts and the tier image want about 2 GiB"
    return MachineCheck("disk", f"{size(free)} free here", advice)


def _engine(place: str) -> _Engine:
    """Look at the engine and, through a container of the tier image, at its machine."""
    try:
        selection = _selected(place)
    except EngineUnavailableError as error:
        until = ". Until then the process launcher is used: no isolation" if place == LOCAL else ""
        none = MachineCheck("Docker engine", "none", f"{error}{until}")
        shaping = MachineCheck("shaping of links", "in user space", "Docker tiers are shaped by the kernel")
        return _Engine((none, shaping), this_host())
    # This command requests Docker itself, so that part of the reason says nothing.
    described = selection.reason.removeprefix("requested: ").removeprefix(f"testbed {place}: ")
    answers = MachineCheck("Docker engine", described)
    try:
        host, refusal = selection.launcher.host(), selection.launcher.delay_refusal()
    # The engine answers, but its machine can only be looked at from within a container of the tier image.
    except (LaunchError, RunnerError) as error:
        return _Engine((answers, MachineCheck("tier image", "none", str(error))), this_host())
    place = f"the host of {described}" if host.remote else "this machine"
    return _Engine((answers, *_shaping(refusal)), host, place)


def _selected(place: str) -> Selection:
    """Return the launcher of the engine at a place."""
    base_image = RunnerSettings().base_image
    if place == LOCAL:
        return select_launcher("docker", base_image=base_image)
    return launcher_of(TestbedSpec(engine=place), name=place, base=Path(), base_image=base_image)


def _shaping(refusal: str | None) -> Iterator[MachineCheck]:
    yield MachineCheck("tier image", "there")
    yield MachineCheck("shaping of links", "tbf, in the kernel")
    advice = f"{refusal}; use --launcher process for links with a delay" if refusal else ""
    yield MachineCheck("delay of links", "no" if refusal else "netem, in the kernel", advice)


TestbedOption = Annotated[
    str | None,
    typer.Option("--testbed", metavar="NAME", help="Look at the places of a declared testbed", show_default=False),
]


def doctor(testbed: TestbedOption = None, catalog: CatalogOption = None, as_json: JsonOption = False) -> None:
    """Show what the machine of the tiers can do, and how to get what it lacks.

    Looks at CPUs, memory, int8, GPU, the Docker engine and the shaping of links; of a testbed, at the place of each
    tier and at the links between them.
    """
    if testbed is not None:
        _show_testbed(testbed, catalog, as_json=as_json)
        return
    _show(tuple(examine()), as_json=as_json)


def _show_testbed(name: str, catalog: Path | None, *, as_json: bool) -> None:
    # Imported here, because planning loads much that a look at this machine does not need.
    from runner.commands.plan import declared_catalog, testbed_of

    declared, base = declared_catalog(catalog)
    spec = testbed_of(declared, name)
    if spec.engine is not None:
        _show(tuple(examine(spec.engine)), as_json=as_json)
        return
    settings = RunnerSettings()
    access = PlaceAccess(base, settings.base_image, settings.tier_token)
    # Of a catalog that lists values, the first setting: places and ways between them are the same in all.
    checks = list(examine_places(declared.settings[0], spec, access))
    usable = not any(row.fatal for row in checks)
    if as_json:
        print_json([{"tier": row.tier, "what": row.what, "found": row.state, "advice": row.advice} for row in checks])
    else:
        table = open_table("tier or link", "what", "found", "what to do")
        for row in checks:
            table.add_row(*(Text(cell) for cell in (row.tier, row.what, row.state, row.advice or "–")))
        out.print(table)
    raise typer.Exit(0 if usable else 1)


def _show(checks: Sequence[MachineCheck], *, as_json: bool) -> None:
    if as_json:
        print_json([{"what": check.what, "found": check.state, "advice": check.advice} for check in checks])
        return
    table = open_table("what", "found", "what to do")
    for check in checks:
        table.add_row(*(Text(cell) for cell in (check.what, check.state, check.advice or "–")))
    out.print(table)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner doctor", "runner doctor --testbed lab-1"))(doctor)


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
