"""How full a container's memory is, from the engine's counters of cgroup v1 or v2.

A tier whose memory is nearly full is not always killed: the kernel first drops the pages of its program and its
model, and reads them from disk again when they are needed. Such a tier lives, but takes minutes and not milliseconds,
and its silence does not explain why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.units import size

# Anonymous memory cannot be freed: once it fills the limit, no room is left for the program's own pages.
_FULL = 0.9
# A tier that is starting reads some hundred pages from disk.
_MANY_FAULTS = 1000


@dataclass(frozen=True)
class MemoryUse:
    """A container's memory: bytes in use now, those outside the page cache, and page faults since its start.

    `limit_hits` is None if the engine does not report it (cgroup v2).
    """

    limit_bytes: int
    held_bytes: int
    anonymous_bytes: int
    major_faults: int
    limit_hits: int | None = None

    @classmethod
    def from_stats(cls, stats: Mapping[str, Any]) -> "MemoryUse | None":
        """Read the engine's `memory_stats`; None if it counts nothing."""
        detail = stats.get("stats") or {}
        if not stats.get("limit") or "usage" not in stats:
            return None
        first = "total_rss" in detail or "rss" in detail  # cgroup v1
        anonymous = detail.get("total_rss", detail.get("rss", 0)) if first else detail.get("anon", 0)
        faults = detail.get("total_pgmajfault", detail.get("pgmajfault", 0))
        hits = stats.get("failcnt", 0) if first else None
        return cls(int(stats["limit"]), int(stats["usage"]), int(anonymous), int(faults), hits)

    @property
    def is_full(self) -> bool:
        """Return whether the use explains that a tier is slow: nothing left to free, or pages that come and go."""
        if self.anonymous_bytes >= _FULL * self.limit_bytes:
            return True
        return self.held_bytes >= _FULL * self.limit_bytes and self.major_faults >= _MANY_FAULTS

    def __str__(self) -> str:
        hits = "" if self.limit_hits is None else f", {self.limit_hits} hits of the limit"
        in_use = f"{size(self.held_bytes)} of {size(self.limit_bytes)} in use"
        return f"{in_use}{hits}, {self.major_faults} pages read again from disk"
