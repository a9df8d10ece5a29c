"""One fill per database: an advisory lock that the kernel releases when its holder dies."""

import fcntl
import hashlib
import os
from pathlib import Path
from types import TracebackType

from runner.errors import RunnerError


class FillLock:
    """Held while a fill runs; a second fill of the same database is refused."""

    def __init__(self, workdir: Path, database: str) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(Path(database).resolve()).encode()).hexdigest()[:16]
        self._path = workdir / f"fill-{name}.lock"
        self._database = database
        self._descriptor = -1

    def __enter__(self) -> "FillLock":
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise RunnerError(
                f"another runner (process {holder}) is filling {self._database}; wait for it or stop it first"
            ) from None
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
