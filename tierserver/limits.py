"""What strangers may make a tier do: every limit in one place, with the reason for its size.

Memory is bounded by them: bodies and answers under way together stay below `max_held_bytes`, a quarter of the tier's
memory, and what the one request that is being decoded would become is refused where it does not fit into what is left
of the other three (`tierserver.memory`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MIN_BODY_BYTES_PER_S = 1024
_UNKNOWN_BYTES = 2**62  # a system that does not tell
_LARGEST_BODY_BYTES = 512 * 2**20
_SMALLEST_BODY_BYTES = 16 * 2**20
# cgroup v2, then v1; in a container the file is the tier's own.
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Limits:
    """A request beyond them gets a 4xx, a connection beyond them is closed."""

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
        """JSON in memory takes a multiple of its text."""
        return self.max_body_bytes // 2


def body_limit(memory_bytes: int) -> int:
    """An eighth of the tier's memory, within what makes sense at all."""
    return max(_SMALLEST_BODY_BYTES, min(_LARGEST_BODY_BYTES, memory_bytes // 8))


def memory_limit_bytes() -> int:
    """The container's memory limit, or the machine's memory where there is none."""
    if not hasattr(os, "sysconf"):
        return _UNKNOWN_BYTES
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in map(Path, _MEMORY_LIMITS):
        try:
            return min(physical, int(path.read_text()))
        except (OSError, ValueError):
            continue  # not this generation of cgroups, or "max"
    return physical
