"""A container that answers on its standard streams: a tier, or what holds a tier's network."""

import time
from collections.abc import Mapping
from typing import Any

from catalog.units import size
from runner.launchers.base import EventCallback
from runner.launchers.channel import ControlChannel, Obituary
from runner.launchers.engine import Engine

# Where a tier finds its mounts.
ROOT = "/tierwise"
_READY_S = 60.0
_DEATH_S = 2.0


class DockerTier:
    """A tier that is a container."""

    def __init__(self, engine: Engine, name: str, container: str, *, memory_bytes: int = 0) -> None:
        self.name = name
        self.container = container
        self._engine = engine
        self._memory_bytes = memory_bytes
        self._attachment = engine.attach(container)
        self._channel = ControlChannel(
            name, lines=self._attachment.lines(), send=self._attachment.send, obituary=self._obituary
        )

    def wait_ready(self) -> None:
        self._channel.wait_ready(deadline_s=_READY_S)

    def call(
        self, command: Mapping[str, Any], *, on_event: EventCallback | None = None, deadline_s: float
    ) -> dict[str, Any]:
        return self._channel.call(command, on_event=on_event, deadline_s=deadline_s)

    def path(self, mount: str) -> str:
        return f"{ROOT}/{mount}"

    def close(self) -> None:
        self._attachment.shut_down()
        self._channel.join(_DEATH_S)
        self._attachment.close()

    def _obituary(self) -> Obituary:
        """Return why the tier ended; raise EngineUnavailableError if the engine itself ended."""
        deadline = time.monotonic() + _DEATH_S
        while (state := self._engine.state(self.container)) is not None and not state.is_final:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if state is None:
            return Obituary("its container was removed", "")
        log_tail = self._engine.log_tail(self.container)
        if state.running:
            return Obituary("its container runs but does not answer", log_tail)
        # Before the exit code, which is that of any SIGKILL.
        if state.oom_killed:
            limit = size(self._memory_bytes)
            return Obituary(f"out of memory: killed at its limit of {limit}", log_tail)
        return Obituary.of_exit(state.exit_code, log_tail)
