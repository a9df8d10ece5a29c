"""Exclusive use of a testbed: in the database, on this machine, and on every Docker engine that its tiers are on.

Two runners that share a database meet at the first lock, two on one machine at the second, and two that reach the same
engine from different machines at the third.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from catalog.evidence.fill_lock import LockCheck, fill_lock, lock_of_testbed
from catalog.units import duration
from runner.errors import MachineBusyError, RunnerError
from runner.host import this_host
from runner.launchers.base import Launcher
from runner.workdir import Owner

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


@contextmanager
def exclusive_machines(launcher: Launcher, locks: Path) -> Iterator[LockCheck]:
    """Use the machines under a launcher's tiers alone within the block.

    What is yielded is a `LockCheck`: a mark on an engine is lost with the connection to it.

    Parameters
    ----------
    launcher : Launcher
    locks : Path
        The folder of this machine's lock.

    Raises
    ------
    MachineBusyError
        When another runner measures on one of them; the message names it.
    """
    marks: list[LockCheck] = []
    with ExitStack() as stack:
        if _measures_here(launcher):
            stack.enter_context(machine_lock(locks))
        # Imported here, so that a run with processes does not load the `docker` package.
        if launcher.name != "process":
            from runner.launchers.docker import DockerLauncher
            from runner.launchers.hosts import TestbedLauncher
            from runner.launchers.marker import engine_marker

            on_engines = [launcher] if isinstance(launcher, DockerLauncher) else []
            if isinstance(launcher, TestbedLauncher):
                on_engines += launcher.engine_launchers()
                for server in launcher.servers():
                    server.hold()
                    stack.callback(server.release)
            for marked in on_engines:
                marks.append(stack.enter_context(engine_marker(marked.engine, image=marked.image().tag)))
        yield _all(marks)


@contextmanager
def exclusive_testbed(name: str, launcher: Launcher, *, database: str, locks: Path) -> Iterator[LockCheck]:
    """Use a testbed alone within the block; yield a `LockCheck` of it."""
    with lock_of_testbed(database, name) as lock, exclusive_machines(launcher, locks) as machines:
        yield _all([lock, machines])


@contextmanager
def exclusive_fill(database: str, launcher: Launcher, locks: Path) -> Iterator[LockCheck]:
    """Fill a database alone, on machines that nothing else measures on; yield as `exclusive_testbed` does."""
    with fill_lock(database) as lock, exclusive_machines(launcher, locks) as machines:
        yield _all([lock, machines])


def _all(checks: Sequence[LockCheck]) -> LockCheck:
    """Return what makes every check."""
    # A list, so that every lock that was lost is taken again.
    return lambda: all([check() for check in checks])  # noqa: C419


def _measures_here(launcher: Launcher) -> bool:
    """Return whether tiers run on this machine, whose processors another runner might use."""
    if launcher.name == "testbed":
        from runner.launchers.hosts import TestbedLauncher

        return isinstance(launcher, TestbedLauncher) and launcher.measures_here()
    return not launcher.host().remote and launcher.host().fingerprint == this_host().fingerprint
