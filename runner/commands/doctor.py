"""`runner doctor`: what the tiers' machine and this one can do, and for each lack what to do about it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from catalog.units import size
from runner.commands.terminal import JsonOption, RunnerSettings, example, out, print_json
from runner.errors import EngineUnavailableError, LaunchError, RunnerError
from runner.host import Host, this_host
from runner.launchers.select import select_launcher

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


def examine() -> Iterator[MachineCheck]:
    """Look at everything that a fill may need; nothing is changed but the tier image being built."""
    engine = _engine()
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


def _engine() -> _Engine:
    """Look at the engine and, through a container of the tier image, at its machine."""
    try:
        selection = select_launcher("docker", base_image=RunnerSettings().base_image)
    except EngineUnavailableError as error:
        none = MachineCheck("Docker engine", "none", f"{error}. Until then the process launcher is used: no isolation")
        shaping = MachineCheck("shaping of links", "in user space", "Docker tiers are shaped by the kernel")
        return _Engine((none, shaping), this_host())
    # This command requests Docker itself, so that part of the reason says nothing.
    described = selection.reason.removeprefix("requested: ")
    answers = MachineCheck("Docker engine", described)
    try:
        host, refusal = selection.launcher.host(), selection.launcher.delay_refusal()
    # The engine answers, but its machine can only be looked at from within a container of the tier image.
    except (LaunchError, RunnerError) as error:
        return _Engine((answers, MachineCheck("tier image", "none", str(error))), this_host())
    place = f"the host of {described}" if host.remote else "this machine"
    return _Engine((answers, *_shaping(refusal)), host, place)


def _shaping(refusal: str | None) -> Iterator[MachineCheck]:
    yield MachineCheck("tier image", "there")
    yield MachineCheck("shaping of links", "tbf, in the kernel")
    advice = f"{refusal}; use --launcher process for links with a delay" if refusal else ""
    yield MachineCheck("delay of links", "no" if refusal else "netem, in the kernel", advice)


def doctor(as_json: JsonOption = False) -> None:
    """Show what the machine of the tiers can do, and how to get what it lacks.

    Looks at CPUs, memory, int8, GPU, the Docker engine and the shaping of links.
    """
    checks = tuple(examine())
    if as_json:
        print_json([{"what": check.what, "found": check.state, "advice": check.advice} for check in checks])
        return
    table = Table("what", "found", "what to do", pad_edge=False)
    for check in checks:
        table.add_row(*(Text(cell) for cell in (check.what, check.state, check.advice or "–")))
    out.print(table)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner doctor"))(doctor)
