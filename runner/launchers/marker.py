"""A container that marks a Docker engine as being measured on, for runners of other machines as well.

Its name is the lock: an engine has no two containers of one name. It waits for the end of its input, which the engine
closes when its runner's connection ends, so that a container which has ended is of a runner that has, too.
"""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from catalog.foreign import printable
from catalog.units import duration
from runner.errors import EngineUnavailableError, LaunchError, MachineBusyError, NameTakenError
from runner.launchers.container import OWNER_LABEL
from runner.launchers.engine import Attachment, ContainerSpec, Engine
from runner.workdir import Owner

NAME = "tierwise-in-use"
_LABEL = "tierwise.marker"
_HOLDER_LABEL = "tierwise.holder"
_SINCE_LABEL = "tierwise.since"
_WAIT_FOR_THE_END = "import sys; sys.stdin.read()"
# A holder that ended a moment ago is seen to have ended a moment later.
_ATTEMPTS, _PAUSE_S = 20, 0.1
_SECONDS_DIGITS = 12


@contextmanager
def engine_marker(engine: Engine, *, image: str) -> Iterator[Callable[[], bool]]:
    """Mark an engine as used by this runner within the block; raise MachineBusyError if another one uses it.

    What is yielded is called before each measurement and before it is stored, and returns whether the mark was there
    since the last call: it ends with the connection, and is made again unless another runner has marked the engine.
    """
    marker = _Marker(engine, image)
    try:
        marker.make()
        yield marker.ensure
    finally:
        marker.remove()


class _Marker:
    """The mark of this runner on an engine."""

    def __init__(self, engine: Engine, image: str) -> None:
        self._engine, self._image = engine, image
        self._container: str | None = None
        self._attachment: Attachment | None = None

    def make(self) -> None:
        self._container = _create(self._engine, self._image)
        self._attachment = self._engine.attach(self._container)
        self._engine.start_container(self._container)

    def ensure(self) -> bool:
        if self._attachment is not None and not self._attachment.ended:
            return True
        self.remove()
        # Where the engine is gone, the measurement that follows says so, and how to continue.
        with suppress(EngineUnavailableError):
            self.make()
        return False

    def remove(self) -> None:
        attachment, container = self._attachment, self._container
        self._attachment = self._container = None
        if attachment is not None:
            attachment.close()
        if container is not None:
            # The engine may have gone away, and nothing of the fill's own error must be hidden by that.
            with suppress(LaunchError):
                self._engine.remove_container(container)


def _create(engine: Engine, image: str) -> str:
    for attempt in range(_ATTEMPTS):
        try:
            return engine.create_container(_specification(image))
        except NameTakenError:
            if not remove_stale_marker(engine) and attempt >= _ATTEMPTS // 2:
                break
            time.sleep(_PAUSE_S)
    raise MachineBusyError(_refusal(engine))


def _specification(image: str) -> ContainerSpec:
    return ContainerSpec(
        image=image,
        command=["python", "-c", _WAIT_FOR_THE_END],
        name=NAME,
        # Not the label of tiers: those are removed by age where their owner is elsewhere, and a fill may take days.
        labels={
            _LABEL: "1",
            OWNER_LABEL: str(Owner.current()),
            _HOLDER_LABEL: f"process {Owner.current().pid} on {socket.gethostname()}",
            _SINCE_LABEL: str(int(time.time())),
        },
        interactive=True,
    )


def remove_stale_marker(engine: Engine) -> bool:
    """Remove the marker of a runner that has ended; return whether there was one."""
    for marker in engine.list_containers(_LABEL):
        owner = Owner.parse((marker.get("Labels") or {}).get(OWNER_LABEL, ""))
        # A container that was only created is of a runner that is about to start it, unless that one is known dead.
        ended = marker.get("State") in ("exited", "dead") or (owner is not None and owner.is_dead)
        if ended:
            with suppress(LaunchError):
                engine.remove_container(str(marker["Id"]))
                return True
    return False


def _refusal(engine: Engine) -> str:
    markers: list[Mapping[str, Any]] = [
        marker for marker in engine.list_containers(_LABEL) if f"/{NAME}" in (marker.get("Names") or ())
    ]
    labels = (markers[0].get("Labels") or {}) if markers else {}
    if Owner.parse(labels.get(OWNER_LABEL, "")) == Owner.current():
        return (
            f"two places lead to the Docker engine at {engine.address}, which this runner uses already; allowed: one "
            "testbed at a time on an engine. Name one of them"
        )
    holder, since = printable(str(labels.get(_HOLDER_LABEL, "unknown"))), labels.get(_SINCE_LABEL, "")
    plain = since.isascii() and since.isdecimal() and len(since) <= _SECONDS_DIGITS
    # Clocks of two machines may differ, by hours even.
    age = f", since {duration(max(0.0, time.time() - int(since)))}" if plain else ""
    return (
        f"another runner ({holder}{age}) measures on the Docker engine at {engine.address}; allowed: one at a time. "
        "Wait for it or stop it, then try again. If its machine is gone, the mark that it left is removed with: "
        f"docker rm --force {NAME}"
    )
