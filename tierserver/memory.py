"""What a request would take of the tier's memory, against what is left: refused before it is taken.

Afterwards would be too late: the kernel ends a container that exceeds its limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

from tierserver.errors import TooLarge
from tierserver.limits import memory_limit_bytes

_STATM = Path("/proc/self/statm")
# What is never worth looking up how much is left, which takes some microseconds.
_SMALL_BYTES = 16 * 2**20
# Bodies and answers of other requests may grow while one is decoded: `limits.body_limit` twice.
_RESERVED = 4
_MIB = 2**20


class Memory:
    """The memory of this process, under a limit."""

    def __init__(self) -> None:
        self._limit_bytes: int | None = None

    @property
    def limit_bytes(self) -> int:
        """Return the limit: the one that was set, else the container's or the machine's."""
        if self._limit_bytes is None:
            self._limit_bytes = memory_limit_bytes()
        return self._limit_bytes

    def limit(self, limit_bytes: int) -> None:
        """Set the limit."""
        self._limit_bytes = limit_bytes

    def require(self, count: int, what: str) -> None:
        """Refuse what would take more bytes than are left; raises `TooLarge`."""
        if count <= _SMALL_BYTES:
            return
        allowed = self.limit_bytes - self.limit_bytes // _RESERVED
        if count > allowed - _resident_bytes():
            _trim()
            if count > (left := allowed - _resident_bytes()):
                raise TooLarge(
                    f"{what} takes about {count // _MIB} MiB of memory here; "
                    f"this tier has {max(left, 0) // _MIB} MiB left for one request"
                )

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Let allocations beyond the limit fail inside the block, where nothing can be estimated beforehand."""
        if not _STATM.exists():  # not Linux, where alone this limit counts what a process maps
            yield
            return
        import resource  # not on Windows, where a runner imports this module too

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        left = max(self.limit_bytes - _resident_bytes(), _SMALL_BYTES)
        wanted = _data_bytes() + left
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


MEMORY = Memory()


def hide_process() -> None:
    """Keep neighbours of the same user from reading this process's memory, environment and pipes (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def _resident_bytes() -> int:
    return _statm(1)


def _data_bytes() -> int:
    """Return what RLIMIT_DATA counts, the mappings that are private and writable."""
    return _statm(5)


def _statm(field: int) -> int:
    try:
        return int(_STATM.read_text().split()[field]) * mmap.PAGESIZE
    except (OSError, IndexError, ValueError):
        return 0  # a system that does not tell


def _trim() -> None:
    """Give memory that was freed, but is still resident, back to the kernel (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
