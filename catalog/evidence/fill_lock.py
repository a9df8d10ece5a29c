"""One fill per database: a lock that is held in the database itself and ends with its holder.

However a database is named (by a link, a URL, another name of its server, from another folder), it is the same one. A
SQLite file is locked by its inode, in a byte far behind those that SQLite locks. A PostgreSQL database is locked by the
server, for the connection that asked.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, text

from catalog.errors import DatabaseError, DatabaseLockedError, DatabaseReadOnlyError
from catalog.evidence.database import advisory_lock, database_file, refuse_other_files, shown_location, unchecked_server

# SQLite locks bytes from 0x40000000 on (sqlite.org/fileformat, section 1.2); files of this size cannot be written.
_LOCKED_BYTE = 1 << 62
_PROC = Path("/proc")
_UNSEEN = "of another user or machine"
# What this process fills, by device and inode. To open such a file again, and close it, would end the locks that SQLite
# holds on it for this process (sqlite.org/howtocorrupt.html, section 2.2).
_filling: set[tuple[int, int]] = set()

_TRY = text("SELECT pg_try_advisory_lock(:space, :purpose)")
_NAME = text("SELECT set_config('application_name', :name, false)")
_HOLDER = text(
    "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND granted "
    "AND datname = current_database() AND database = datid AND classid = :space AND objid = :purpose AND objsubid = 2"
)


def fill_lock(url_or_path: str | Path) -> AbstractContextManager[None]:
    """Hold the lock of a database's fill within the block.

    Parameters
    ----------
    url_or_path : str or Path
        As `open_database` takes it. A SQLite file that is missing is made, empty.

    Raises
    ------
    DatabaseLockedError
        When another fill holds it; the message names its process.
    DatabaseError
        When the database cannot be reached, or may not be written.

    Notes
    -----
    The kernel ends the lock of a file when its holder ends, the server that of a connection. Where locks of open files
    are unknown (macOS), a file beside the database is locked, which a hard link in another folder does not share.
    """
    file = database_file(url_or_path)
    return _server_lock(url_or_path) if file is None else _file_lock(file, shown_location(url_or_path))


@contextmanager
def _file_lock(file: Path, shown: str) -> Iterator[None]:
    descriptor = _locked(file, shown)
    identity = _identity(descriptor)
    _filling.add(identity)
    try:
        yield
    finally:
        _filling.discard(identity)
        # Closing releases the lock.
        os.close(descriptor)


def _locked(file: Path, shown: str) -> int:
    """Return the descriptor of the locked file."""
    while True:
        descriptor = _opened(file, shown)
        try:
            _lock(descriptor)
            # Another file may have taken its place before it was locked.
            with suppress(FileNotFoundError):
                if sys.platform != "linux" or _identity(descriptor) == _identity(file):
                    return descriptor
        except OSError as error:
            holder = _holder(_identity(descriptor))
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise _refused(shown, holder) from None
            message = f"its file system has no locks ({error.strerror}); put the database on a disk of this machine"
            raise DatabaseError(shown, message) from error
        os.close(descriptor)


def _opened(file: Path, shown: str) -> int:
    if refuse_other_files(file) and _identity(file) in _filling:
        raise _refused(shown, _process(os.getpid()))
    target = file if sys.platform == "linux" else file.with_name(f".{file.name}.fill-lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except PermissionError as error:
        raise _read_only(shown, error) from error
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        raise _read_only(shown, error) from error


def _lock(descriptor: int) -> None:
    if sys.platform != "linux":
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    # `struct flock` (fcntl(2)): of the open file, because a lock of the process ends when any descriptor is closed.
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)


def _identity(file: int | Path) -> tuple[int, int]:
    status = os.stat(file)  # noqa: PTH116 - also of a descriptor
    return status.st_dev, status.st_ino


def _holder(identity: tuple[int, int]) -> str:
    """Return the process that holds the lock of a file, as far as this user may see it."""
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                # It may be closed meanwhile, and others are no concern of this one.
                with suppress(OSError):
                    if _identity(descriptor) == identity and _holds(process / "fdinfo" / descriptor.name):
                        return _process(int(process.name))
    return _UNSEEN


def _holds(description: Path) -> bool:
    """Tell whether a descriptor has the lock (proc(5), fdinfo)."""
    lines = description.read_text(errors="replace").splitlines()
    return any(line.startswith("lock:") and line.split()[-2:] == [str(_LOCKED_BYTE)] * 2 for line in lines)


@contextmanager
def _server_lock(url_or_path: str | Path) -> Iterator[None]:
    database = unchecked_server(url_or_path)
    try:
        with database.translated():
            connection = database.engine.connect()
        try:
            with database.translated():
                # Without a transaction: one that is open for hours would keep the server from clearing up.
                _lock_server(connection.execution_options(isolation_level="AUTOCOMMIT"), database.location)
            yield
        finally:
            # Closed instead of reset, which would fail loudly where the server has gone away.
            connection.invalidate()
            connection.close()
    finally:
        database.close()


def _lock_server(connection: Connection, shown: str) -> None:
    if connection.dialect.name != "postgresql":
        raise DatabaseError(shown, "a fill needs a lock in the database; allowed: SQLite and PostgreSQL")
    # The name by which a second fill, and the server's own views, show the holder; PostgreSQL cuts it at 63 bytes.
    connection.execute(_NAME, {"name": f"tierwise fill: {_process(os.getpid())} on {socket.gethostname()}"})
    lock = advisory_lock("fill")
    if not connection.execute(_TRY, lock).scalar():
        holder = str(connection.execute(_HOLDER, lock).scalar() or "")
        raise _refused(shown, holder.partition("fill: ")[2] or _UNSEEN)


def _process(pid: int) -> str:
    return f"process {pid}"


def _refused(shown: str, holder: str) -> DatabaseLockedError:
    return DatabaseLockedError(
        shown,
        f"another runner ({holder}) is filling it; allowed: one at a time. Wait for it or stop it, then give the same "
        "command again",
    )


def _read_only(shown: str, error: OSError) -> DatabaseReadOnlyError:
    return DatabaseReadOnlyError(
        shown,
        f"it may only be read, or its folder ({error.strerror}); allowed: a file and a folder that this user may "
        "write. Change their permissions, or name another database with --database",
    )
