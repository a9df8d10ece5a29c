"""Timing a link by payloads: two sizes in each direction, so that constant costs cancel."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from tierserver.errors import CommandError, PeerError
from tierserver.messages import LinkProbe, Probe, ProbeDirection
from tierserver.transport import Connection

_RTT_REPETITIONS = 5


def probe_link(command: Probe) -> LinkProbe:
    """Probe the link to the tier at the command's base URL."""
    up = _Payloads(command.small_bytes, command.large_bytes)
    down = _Payloads(
        up.small if command.down_small_bytes is None else command.down_small_bytes,
        up.large if command.down_large_bytes is None else command.down_large_bytes,
    )
    if not (0 <= up.small < up.large and 0 <= down.small < down.large) or command.repetitions < 1:
        raise CommandError("probe needs 0 <= small_bytes < large_bytes and at least one repetition")
    connection = Connection(command.url)
    try:
        return _probe(connection, up, down, command.repetitions)
    finally:
        connection.close()


@dataclass(frozen=True)
class _Payloads:
    """The bytes of the two transfers in one direction."""

    small: int
    large: int


def _probe(connection: Connection, up: _Payloads, down: _Payloads, repetitions: int) -> LinkProbe:
    def receive(count: int) -> None:
        _checked(connection, "GET", f"/probe?bytes={count}", b"")

    def send(count: int) -> None:
        _checked(connection, "POST", "/probe", bytes(count))

    receive(0)  # opens the connection
    rtt_s = median(_timed(receive, 0) for _ in range(max(_RTT_REPETITIONS, repetitions)))
    return LinkProbe(_direction(send, up, repetitions), _direction(receive, down, repetitions), rtt_s)


def _direction(transfer: Callable[[int], None], payloads: _Payloads, repetitions: int) -> ProbeDirection:
    small_s = median(_timed(transfer, payloads.small) for _ in range(repetitions))
    large_s = median(_timed(transfer, payloads.large) for _ in range(repetitions))
    if large_s <= small_s:  # something held up the small one: the large one alone bounds the rate from below
        return ProbeDirection(small_s, large_s, 8 * payloads.large / large_s)
    return ProbeDirection(small_s, large_s, 8 * (payloads.large - payloads.small) / (large_s - small_s))


def _timed(transfer: Callable[[int], None], count: int) -> float:
    started = time.perf_counter()
    transfer(count)
    return time.perf_counter() - started


def _checked(connection: Connection, method: str, path: str, body: bytes) -> None:
    response = connection.request(method, path, pieces=(body,) if body else ())
    if response.status != 200:
        reason = bytes(response.body[:300]).decode("utf-8", "replace")
        raise PeerError(f"probe: {connection.base_url} answered {response.status}: {reason}", peer=connection.base_url)
