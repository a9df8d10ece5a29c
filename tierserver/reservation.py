"""Who may use a tier server now: one holder at a time, until it lets go or is silent for the length of a lease."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tierserver.errors import Busy, RequestError
from tierserver.server_messages import LEASE_S

_LONGEST_TEXT = 200


@dataclass
class _Holder:
    identifier: str
    who: str
    since_s: float
    renewed_s: float


class Reservation:
    """The reservation of one tier server; times are read from one monotonic clock, never compared between machines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._holder: _Holder | None = None

    def take(self, holder: str, who: str) -> None:
        """Take or renew the reservation; raise Busy while somebody else has it."""
        if not 0 < len(holder) <= _LONGEST_TEXT or len(who) > _LONGEST_TEXT:
            raise RequestError(f"holder and who have 1 to {_LONGEST_TEXT} characters")
        now = self._clock()
        if self._is_live() and self._holder is not None and self._holder.identifier != holder:
            raise self._busy(self._holder)
        since_s = self._holder.since_s if self._holder is not None and self._holder.identifier == holder else now
        self._holder = _Holder(holder, who, since_s, now)

    def check(self, holder: str) -> None:
        """Raise Busy unless this is the present holder."""
        if not self._is_live() or self._holder is None:
            raise Busy(
                "nobody holds this tier server; its reservation was given back, or lapsed without a sign of life"
            )
        if self._holder.identifier != holder:
            raise self._busy(self._holder)

    def release(self, holder: str) -> bool:
        """Give the reservation back; return whether this holder had it."""
        if self._holder is None or self._holder.identifier != holder:
            return False
        self._holder = None
        return True

    def _is_live(self) -> bool:
        return self._holder is not None and self._clock() - self._holder.renewed_s < LEASE_S

    def _busy(self, holder: _Holder) -> Busy:
        # `who` comes from the network and goes into a terminal.
        who = "".join(letter if letter.isprintable() else "?" for letter in holder.who)
        since = f"{self._clock() - holder.since_s:.0f} s"
        return Busy(f"this tier server is in use by {who}, since {since}; try again when it is done")
