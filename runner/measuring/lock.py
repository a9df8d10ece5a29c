"""One fill per database: an advisory lock that the kernel releases when its holder dies.

The locked file lies beside the database, so that two runners share it wherever they were started; for a database server
it lies in the working directory.

`fcntl.flock` is used directly: filelock does not record who holds a lock (before 4.0 it even empties the file before it
has the lock), so the holder's process id, which the message names, would be written and read here all the same.
"""

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from types import TracebackType

from catalog.errors import DatabaseReadOnlyError
from catalog.evidence.database import shown_location
from runner.errors import RunnerError


class FillLock:
    """A lock for the time of a fill; a second fill of the same database is refused."""

    def __init__(self, workdir: Path, database: str) -> None:
        self._path = _lock_file(workdir, database)
        self._database = shown_location(database)
        self._descriptor = -1

    def __enter__(self) -> "FillLock":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError as error:
            raise _read_only(self._database, error) from error
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            raise _read_only(self._database, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise RunnerError(
                f"another runner (process {holder}) is filling {self._database}; allowed: one at a time. "
                "Wait for it or stop it, then give the same command again"
            ) from None
        # Only now: before the lock is held, the file names the other holder.
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing releases the lock. The file stays: if it were removed, two runners could lock two files of one name.
        os.close(self._descriptor)


def _read_only(database: str, error: OSError) -> DatabaseReadOnlyError:
    return DatabaseReadOnlyError(
        database,
        f"its folder may only be read ({error.strerror}); allowed: a folder that this user may write. "
        "Change its permissions, or name another database with --database",
    )


def _lock_file(workdir: Path, database: str) -> Path:
    path = Path(database.removeprefix("sqlite:///"))
    if "://" in str(database) and path == Path(database):
        # Hashed, because an address has characters that a file name cannot have. The password is not part of it.
        return workdir / f"fill-{hashlib.sha256(shown_location(database).encode()).hexdigest()[:16]}.lock"
    beside = path.expanduser().resolve()
    return beside.with_name(f".{beside.name}.fill-lock")
