"""`runner doctor`: what the tiers' machine and this one can do, and for each lack what to do about it."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from catalog.declaration import TestbedSpec
from catalog.declaration.testbeds import LOCAL
from catalog.units import size
from runner.commands.terminal import CatalogOption, JsonOption, RunnerSettings, example, out, print_json
from runner.errors import EngineUnavailableError, LaunchError, RunnerError
from runner.host import Host, this_host
from runner.launchers.select import Selection, launcher_of, select_launcher

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
    # Imported here, so that a look at this machine without Docker does not load the `docker` package.
    from runner.commands.doctor_testbed import examine_places
    from runner.launchers.places import PlaceAccess

    settings = RunnerSettings()
    access = PlaceAccess(base, settings.base_image, settings.tier_token)
    # Of a catalog that lists values, the first setting: places and ways between them are the same in all.
    checks = list(examine_places(declared.settings[0], spec, access))
    usable = not any(row.fatal for row in checks)
    if as_json:
        print_json([{"tier": row.tier, "what": row.what, "found": row.state, "advice": row.advice} for row in checks])
    else:
        table = Table("tier or link", "what", "found", "what to do", pad_edge=False)
        for row in checks:
            table.add_row(*(Text(cell) for cell in (row.tier, row.what, row.state, row.advice or "–")))
        out.print(table)
    raise typer.Exit(0 if usable else 1)


def _show(checks: Sequence[MachineCheck], *, as_json: bool) -> None:
    if as_json:
        print_json([{"what": check.what, "found": check.state, "advice": check.advice} for check in checks])
        return
    table = Table("what", "found", "what to do", pad_edge=False)
    for check in checks:
        table.add_row(*(Text(cell) for cell in (check.what, check.state, check.advice or "–")))
    out.print(table)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner doctor", "runner doctor --testbed lab-1"))(doctor)
