"""The lock of this machine: one runner at a time measures with its processors, whichever database it stores into."""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catalog.units import duration
from runner.errors import MachineBusyError, RunnerError
from runner.launchers.owner import Owner

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
