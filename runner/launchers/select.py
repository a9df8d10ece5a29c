"""Which launcher: the one place that chooses between the real thing and the embedded default."""

from dataclasses import dataclass

from runner.errors import EngineUnavailableError, RunnerError
from runner.launchers.base import Launcher
from runner.launchers.process import ProcessLauncher

_NAMES = ("auto", "docker", "process")


@dataclass(frozen=True)
class Selection:
    """A launcher and why it was taken."""

    launcher: Launcher
    reason: str


def select_launcher(name: str, *, base_image: str | None = None) -> Selection:
    """The launcher of that name; `auto` takes Docker when an engine answers.

    `base_image` is what the tier image is built from, for Docker only; None lets the builder choose.
    Raises EngineUnavailableError when `docker` was asked for and no engine answers.
    """
    if name == "process":
        return Selection(ProcessLauncher(), "asked for")
    if name not in _NAMES:
        raise RunnerError(f"unknown launcher {name!r}; there are: {', '.join(_NAMES)}")
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
        return Selection(launcher, f"asked for: {described}")
    if refusal := launcher.refusal():
        return Selection(ProcessLauncher(), f"an engine answers ({described}), but {refusal}")
    return Selection(launcher, f"an engine answers: {described}")
