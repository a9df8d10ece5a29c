"""One fill per database, and one user of a testbed: locks that are held in the database and end with their holder.

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
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from catalog.errors import DatabaseError, DatabaseLockedError, DatabaseReadOnlyError
from catalog.evidence.database import (
    Database,
    advisory_lock,
    database_file,
    refuse_other_files,
    shown_location,
    unchecked_server,
)

# SQLite locks bytes from 0x40000000 on (sqlite.org/fileformat, section 1.2); files of this size cannot be written.
_LOCKED_BYTE = 1 << 62
# The second number of a testbed's lock on a server, which starts where those of this program's own purposes never are.
_TESTBEDS_FROM = 1 << 30
_PROC = Path("/proc")
_UNSEEN = "of another user or machine"
# What this process has locked: device, inode and byte. To open such a file again, and close it, would end the locks
# that SQLite holds on it for this process (sqlite.org/howtocorrupt.html, section 2.2).
_locked_here: set[tuple[int, int, int]] = set()

# Called before each measurement, and before it is stored: returns whether the lock was held without a break since the
# last call. Where it was lost it is taken again; DatabaseLockedError is raised where another runner has it.
LockCheck = Callable[[], bool]

_TRY = text("SELECT pg_try_advisory_lock(:space, :purpose)")
_NAME = text("SELECT set_config('application_name', :name, false)")
_HOLDER = text(
    "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND granted "
    "AND datname = current_database() AND database = datid AND classid = :space AND objid = :purpose AND objsubid = 2"
)


@dataclass(frozen=True)
class _Purpose:
    """What a lock is for: `number` tells it from the others, `holding` and `advice` are the words of a refusal."""

    number: int
    holding: str
    advice: str

    @property
    def byte(self) -> int:
        """Return the byte of a file that is locked."""
        return _LOCKED_BYTE + self.number

    @property
    def of_server(self) -> dict[str, int]:
        """Return the numbers of the server's lock."""
        lock = advisory_lock("fill")
        return lock | {"purpose": self.number} if self.number else lock


_FILL = _Purpose(0, "is filling it", "one at a time. Wait for it or stop it, then give the same command again")

_SERVER_IDENTITY = text(
    "SELECT system_identifier || ':' || oid FROM pg_control_system(), pg_database WHERE datname = current_database()"
)


def _testbed(name: str) -> _Purpose:
    # Two names of one number exclude one another needlessly: one in a thousand million.
    number = _TESTBEDS_FROM | zlib.crc32(name.encode(errors="surrogateescape")) >> 2
    advice = (
        f"one runner at a time measures on a testbed. Wait for it or stop it, or name another testbed than {name!r}"
    )
    return _Purpose(number, f"uses testbed {name!r}", advice)


def lock_of_testbed(url_or_path: str | Path, testbed: str) -> AbstractContextManager[LockCheck]:
    """Hold the lock of a testbed in the database that its measurements are stored in, within the block.

    Parameters
    ----------
    url_or_path : str or Path
        As `open_database` takes it.
    testbed : str
        Its name in the catalog.

    Yields
    ------
    callable
        A `LockCheck`: a server that was restarted has forgotten the lock. Of a SQLite file it raises DatabaseError
        where another file has taken its place.
    """
    return _lock_for(url_or_path, _testbed(testbed))


def fill_lock(url_or_path: str | Path) -> AbstractContextManager[LockCheck]:
    """Hold the lock of a database's fill within the block.

    Parameters
    ----------
    url_or_path : str or Path
        As `open_database` takes it. A SQLite file that is missing is made, empty.

    Yields
    ------
    callable
        A `LockCheck`, as that of `lock_of_testbed`.

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
    return _lock_for(url_or_path, _FILL)


def identity_of(database: Database) -> str:
    """Return what two processes can compare to see that they opened the same database, however each names it."""
    file = database.file
    if file is not None:
        # A file system that two machines mount has no locks that SQLite could trust: another machine is another file.
        return f"{socket.gethostname()}:{':'.join(map(str, _identity(file)))}"
    with database.session() as session:
        return str(session.execute(_SERVER_IDENTITY).scalar_one())


def _lock_for(url_or_path: str | Path, purpose: _Purpose) -> AbstractContextManager[LockCheck]:
    file = database_file(url_or_path)
    if file is None:
        return _server_lock(url_or_path, purpose)
    return _file_lock(file, shown_location(url_or_path), purpose)


@contextmanager
def _file_lock(file: Path, shown: str, purpose: _Purpose) -> Iterator[LockCheck]:
    descriptor = _locked(file, shown, purpose)
    place = (*_identity(descriptor), purpose.byte)
    _locked_here.add(place)

    def ensure() -> bool:
        # The kernel forgets no lock while its holder lives; but one who opens the name now may lock another file.
        with suppress(FileNotFoundError):
            if _identity(_lock_file(file, purpose)) == place[:2]:
                return True
        raise DatabaseError(
            shown,
            "another file is in its place now, or none, since this run began to store there; what it measured is in "
            "the former one. Give the same command again",
        )

    try:
        yield ensure
    finally:
        _locked_here.discard(place)
        # Closing releases the lock.
        os.close(descriptor)


def _locked(file: Path, shown: str, purpose: _Purpose) -> int:
    """Return the descriptor of the locked file."""
    while True:
        descriptor = _opened(file, shown, purpose)
        try:
            _lock(descriptor, purpose)
            # Another file may have taken its place before it was locked.
            with suppress(FileNotFoundError):
                if sys.platform != "linux" or _identity(descriptor) == _identity(file):
                    return descriptor
        except OSError as error:
            holder = _holder(_identity(descriptor), purpose)
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise _refused(shown, holder, purpose) from None
            message = f"its file system has no locks ({error.strerror}); put the database on a disk of this machine"
            raise DatabaseError(shown, message) from error
        os.close(descriptor)


def _opened(file: Path, shown: str, purpose: _Purpose) -> int:
    if refuse_other_files(file) and (*_identity(file), purpose.byte) in _locked_here:
        raise _refused(shown, _process(os.getpid()), purpose)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(_lock_file(file, purpose), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except PermissionError as error:
        raise _read_only(shown, error) from error
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        raise _read_only(shown, error) from error


def _lock_file(file: Path, purpose: _Purpose) -> Path:
    """Return the file that is locked: the database itself, where the kernel knows locks of open files."""
    suffix = "fill-lock" if purpose is _FILL else f"testbed-{purpose.number}-lock"
    return file if sys.platform == "linux" else file.with_name(f".{file.name}.{suffix}")


def _lock(descriptor: int, purpose: _Purpose) -> None:
    if sys.platform != "linux":
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    # `struct flock` (fcntl(2)): of the open file, because a lock of the process ends when any descriptor is closed.
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, purpose.byte, 1, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)


def _identity(file: int | Path) -> tuple[int, int]:
    status = os.stat(file)  # noqa: PTH116 - also of a descriptor
    return status.st_dev, status.st_ino


def _holder(identity: tuple[int, int], purpose: _Purpose) -> str:
    """Return the process that holds the lock of a file, as far as this user may see it."""
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                # It may be closed meanwhile, and others are no concern of this one.
                with suppress(OSError):
                    if _identity(descriptor) == identity and _holds(process / "fdinfo" / descriptor.name, purpose):
                        return _process(int(process.name))
    return _UNSEEN


def _holds(description: Path, purpose: _Purpose) -> bool:
    """Tell whether a descriptor has the lock (proc(5), fdinfo)."""
    lines = description.read_text(errors="replace").splitlines()
    return any(line.startswith("lock:") and line.split()[-2:] == [str(purpose.byte)] * 2 for line in lines)


@contextmanager
def _server_lock(url_or_path: str | Path, purpose: _Purpose) -> Iterator[LockCheck]:
    database = unchecked_server(url_or_path)
    connections: list[Connection] = []
    # The environments of a fill are measured in threads, and a connection carries one statement at a time.
    one_at_a_time = threading.Lock()

    def take() -> None:
        with database.translated():
            connection = database.engine.connect()
        connections.append(connection)
        with database.translated():
            # Without a transaction: one that is open for hours would keep the server from clearing up.
            connection.execution_options(isolation_level="AUTOCOMMIT")
            _lock_server(connection, database.location, purpose)

    def release() -> None:
        while connections:
            connection = connections.pop()
            # Closed instead of reset, which would fail loudly where the server has gone away.
            connection.invalidate()
            connection.close()

    def ensure() -> bool:
        with one_at_a_time:
            try:
                connections[-1].execute(text("SELECT 1"))
                return True
            except (SQLAlchemyError, IndexError):
                # The server ended the connection, and with it the lock.
                release()
                take()
                return False

    try:
        take()
        yield ensure
    finally:
        release()
        database.close()


def _lock_server(connection: Connection, shown: str, purpose: _Purpose) -> None:
    if connection.dialect.name != "postgresql":
        raise DatabaseError(shown, "a fill needs a lock in the database; allowed: SQLite and PostgreSQL")
    # The name by which a second runner, and the server's own views, show the holder; PostgreSQL cuts it at 63 bytes.
    connection.execute(_NAME, {"name": f"tierwise fill: {_process(os.getpid())} on {socket.gethostname()}"})
    if not connection.execute(_TRY, purpose.of_server).scalar():
        holder = str(connection.execute(_HOLDER, purpose.of_server).scalar() or "")
        raise _refused(shown, holder.partition("fill: ")[2] or _UNSEEN, purpose)


def _process(pid: int) -> str:
    return f"process {pid}"


def _refused(shown: str, holder: str, purpose: _Purpose) -> DatabaseLockedError:
    return DatabaseLockedError(shown, f"another runner ({holder}) {purpose.holding}; allowed: {purpose.advice}")


def _read_only(shown: str, error: OSError) -> DatabaseReadOnlyError:
    return DatabaseReadOnlyError(
        shown,
        f"it may only be read, or its folder ({error.strerror}); allowed: a file and a folder that this user may "
        "write. Change their permissions, or name another database with --database",
    )
