"""The choice of a launcher, made in this one place."""

from dataclasses import dataclass

from runner.errors import EngineUnavailableError, RunnerError
from runner.launchers.base import Launcher
from runner.launchers.process import ProcessLauncher

_NAMES = ("auto", "docker", "process")


@dataclass(frozen=True)
class Selection:
    """A launcher and why it was chosen."""

    launcher: Launcher
    reason: str


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
