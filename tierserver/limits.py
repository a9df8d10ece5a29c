"""What strange clients may make a tier do: every limit in one place, with the reason for its size.

Memory is bounded by them: bodies and answers under way together stay below `max_held_bytes`, a quarter of the tier's
memory, and the one request that is being decoded is refused if it would not fit into what is left of the other
three (`tierserver.limits`).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tierserver.errors import TooLarge

# Far slower than a link of 1 Mbit/s, and still the end of a sender that sends one byte a minute.
MIN_BODY_BYTES_PER_S = 1024
_UNKNOWN_BYTES = 2**62  # a system that does not report it
_LARGEST_BODY_BYTES = 512 * 2**20
_SMALLEST_BODY_BYTES = 16 * 2**20
# cgroup v2, then v1; in a container the file is the tier's own.
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Limits:
    """The limits of requests and connections: a request beyond them gets a 4xx, a connection is closed."""

    max_body_bytes: int = _LARGEST_BODY_BYTES  # of one request; relayed and probe bodies flow and are not counted
    max_held_bytes: int = 2 * _LARGEST_BODY_BYTES  # of all requests and answers under way
    max_connections: int = 256
    max_head_bytes: int = 65536
    max_pipelined: int = 16  # requests of one connection that wait for the answer to an earlier one
    head_timeout_s: float = 15.0  # from a connection's or a request's first byte to its last header
    read_timeout_s: float = 60.0  # of waiting for a body's next byte; in all, plus a second per MIN_BODY_BYTES_PER_S
    write_timeout_s: float = 60.0  # without the reader taking one byte

    @property
    def max_json_bytes(self) -> int:
        """Return half of a body's limit: JSON takes a multiple of its text in memory."""
        return self.max_body_bytes // 2


def body_limit(memory_bytes: int) -> int:
    """Return an eighth of the tier's memory, between the smallest and the largest useful limit."""
    return max(_SMALLEST_BODY_BYTES, min(_LARGEST_BODY_BYTES, memory_bytes // 8))


def memory_limit_bytes() -> int:
    """Return the container's memory limit, or the machine's memory if there is none."""
    if not hasattr(os, "sysconf"):
        return _UNKNOWN_BYTES
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in map(Path, _MEMORY_LIMITS):
        try:
            return min(physical, int(path.read_text()))
        except (OSError, ValueError):
            continue  # not this generation of cgroups, or "max"
    return physical


_STATM = Path("/proc/self/statm")
# Below this size the look-up of the memory that is left, some microseconds, is not worth its time.
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
        """Raise TooLarge for anything that takes more bytes than are left."""
        if count <= _SMALL_BYTES:
            return
        allowed = self.limit_bytes - self.limit_bytes // _RESERVED
        if count > allowed - _resident_bytes():
            # Only before a refusal: freed memory that glibc keeps is not in use, but giving it back takes time.
            _trim()
            if count > (left := allowed - _resident_bytes()):
                raise TooLarge(
                    f"{what} takes about {count // _MIB} MiB of memory here; "
                    f"this tier has {max(left, 0) // _MIB} MiB left for one request"
                )

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Make allocations beyond the limit fail inside the block, where nothing can be estimated beforehand."""
        if not _STATM.exists():  # not Linux, where alone this limit counts what a process maps
            yield
            return
        import resource  # not on Windows, where a runner imports this module too

        # RLIMIT_AS would also count mapped files and reserved addresses; RLIMIT_DATA counts mmap since Linux 4.7.
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        left = max(self.limit_bytes - _resident_bytes(), _SMALL_BYTES)
        bound = _data_bytes() + left
        # RLIM_INFINITY is -1 here, so `min` alone would take it for the smaller limit.
        resource.setrlimit(resource.RLIMIT_DATA, (bound if hard < 0 else min(bound, hard), hard))
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
        return 0  # a system that does not report it


def _trim() -> None:
    """Give memory that was freed, but is still resident, back to the kernel (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
