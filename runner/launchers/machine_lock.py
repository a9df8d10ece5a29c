"""The locks of a machine: a file for the runners of this one, a container for all that reach a Docker engine.

One runner at a time measures with the processors of this machine, whichever database it stores into. The container
marks an engine as being measured on, for runners of other machines as well. Its name is the lock: an engine has no two
containers of one name. It waits for the end of its input, which the engine closes when its runner's connection ends, so
that a container which has ended is of a runner that has, too.
"""

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from catalog.printable import printable
from catalog.units import duration
from runner.errors import LaunchError, MachineBusyError, NameTakenError, RunnerError
from runner.launchers.engine import ContainerSpec, Engine
from runner.launchers.owner import Owner
from runner.launchers.volumes import OWNER_LABEL

NAME = "tierwise-in-use"
_LABEL = "tierwise.marker"
_HOLDER_LABEL = "tierwise.holder"
_SINCE_LABEL = "tierwise.since"
_WAIT_FOR_THE_END = "import sys; sys.stdin.read()"
# A holder that ended a moment ago is seen to have ended a moment later.
_ATTEMPTS, _PAUSE_S = 20, 0.1
_SECONDS_DIGITS = 12


@contextmanager
def engine_marker(engine: Engine, *, image: str) -> Iterator[None]:
    """Mark an engine as used by this runner within the block; raise MachineBusyError if another one uses it."""
    container = _create(engine, image)
    try:
        attachment = engine.attach(container)
        try:
            engine.start_container(container)
            yield
        finally:
            attachment.close()
    finally:
        # The engine may have gone away, and nothing of the fill's own error must be hidden by that.
        with suppress(LaunchError):
            engine.remove_container(container)


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


_FILE = "machine.lock"
_RECORD_BYTES = 300


@contextmanager
def machine_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of this machine within the block.

    Parameters
    ----------
    directory : Path
        Where the lock's file is; runners that name different directories do not see one another.

    Raises
    ------
    MachineBusyError
        When another runner holds it; the message names its process and since when.
    RunnerError
        When the file cannot be made.

    Notes
    -----
    The kernel ends the lock when its holder ends, however that happens, so that no lock is ever stale.
    """
    path = directory / _FILE
    try:
        descriptor = _opened(path)
    except OSError as error:
        raise RunnerError(
            f"the lock of this machine, {path}, cannot be opened ({error.strerror}); allowed: a folder that every "
            "runner of this machine may write. Name one with TIERWISE_LOCKS"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineBusyError(
                f"another runner ({_holder(descriptor)}) measures on this machine; {_ADVICE}"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{Owner.current().pid} {int(time.time())}".encode(), 0)
        yield
    finally:
        # Closing releases the lock; the file stays, because another runner may be opening it.
        os.close(descriptor)


_ADVICE = "allowed: one at a time, so that neither measures the other's load. Wait for it or stop it, then try again"


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # Without O_CREAT: in a folder that all may write, the kernel refuses it for a file of another user.
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o666)
        with suppress(OSError):
            # Past the umask: runners of other users lock the same file.
            os.fchmod(descriptor, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(0, "it is not a regular file", str(path))
    return descriptor


def _holder(descriptor: int) -> str:
    """Return the process that holds the lock, as it wrote itself into the file."""
    pid, _, since = os.pread(descriptor, _RECORD_BYTES, 0).decode("ascii", "replace").partition(" ")
    if not (pid.isdecimal() and since.isdecimal()):
        return "which has not said its process yet"
    return f"process {pid}, since {duration(max(0.0, time.time() - int(since)))}"
