"""The choice of a launcher, made in this one place."""

from dataclasses import dataclass, replace
from pathlib import Path

from catalog.declaration import TestbedSpec
from catalog.declaration.schema import EMULATED, LOCAL
from runner.errors import EngineUnavailableError, RunnerError
from runner.launchers.base import Launcher
from runner.launchers.process import ProcessLauncher

_NAMES = ("auto", "docker", "process")


@dataclass(frozen=True)
class Selection:
    """A launcher and why it was chosen; `replicas` is the class of a testbed that shares its rounds with others."""

    launcher: Launcher
    reason: str
    testbed: str = EMULATED
    replicas: str | None = None
    real_links: bool = False


def select_launcher(name: str, *, base_image: str | None = None) -> Selection:
    """Return the launcher of that name; `auto` takes Docker if an engine answers.

    `base_image` is what the tier image is built from, for Docker only; None lets the builder choose.
    Raises EngineUnavailableError if `docker` is requested and no engine answers.
    """
    if name == "process":
        return Selection(ProcessLauncher(), "requested")
    if name not in _NAMES:
        raise RunnerError(f"unknown launcher {name!r}; there are: {', '.join(_NAMES)}")
    # Imported here, so that a run with processes does not load the `docker` package.
    from runner.launchers.docker import DockerLauncher
    from runner.launchers.engine import Engine

    try:
        engine = Engine.connect()
    except EngineUnavailableError as error:
        if name == "docker":
            raise
        return Selection(ProcessLauncher(), f"no Docker engine answers: {error}")
    launcher = DockerLauncher(engine, base_image=base_image)
    described = f"Docker {engine.version} at {engine.address}"
    if name == "docker":
        return Selection(launcher, f"requested: {described}")
    if refusal := launcher.refusal():
        return Selection(ProcessLauncher(), f"an engine answers ({described}), but {refusal}")
    return Selection(launcher, f"an engine answers: {described}")


def launcher_of(
    testbed: TestbedSpec,
    *,
    name: str,
    base: Path,
    base_image: str | None = None,
    token: str = "",
    launcher: str = "auto",
) -> Selection:
    """Return the launcher of a declared testbed.

    Parameters
    ----------
    testbed : TestbedSpec
    name : str
        Of the testbed, for messages.
    base : Path
        The folder of the catalog, where relative paths start.
    base_image : str or None
        What tier images are built from.
    token : str
        Of tier servers that name no file.
    launcher : str
        Which launcher a testbed on this machine takes: auto, docker or process.

    Raises
    ------
    RunnerError
        Where an engine or a tier server does not answer, before anything is measured.
    """
    if testbed.engine == LOCAL:
        return replace(select_launcher(launcher, base_image=base_image), testbed=name, replicas=testbed.replicas)
    if launcher == "process":
        raise RunnerError(f"testbed {name!r} runs its tiers on Docker engines; leave out --launcher process")
    # Imported here, so that a run with processes does not load the `docker` package.
    from runner.launchers.docker import DockerLauncher
    from runner.launchers.engine import Engine

    if testbed.engine is None:
        from runner.launchers.hosts import TestbedLauncher

        started = TestbedLauncher.open(testbed, base=base, base_image=base_image, token=token)
        reason = f"testbed {name}: {started.describe().version}"
        return Selection(started, reason, name, testbed.replicas, real_links=testbed.links == "real")
    engine = Engine.connect(testbed.engine)
    launcher_there = DockerLauncher(engine, base_image=base_image, place=testbed.engine)
    return Selection(launcher_there, f"testbed {name}: Docker {engine.version}", name, testbed.replicas)
