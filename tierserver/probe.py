"""Timing a link by payloads: two sizes in each direction, so that constant costs cancel."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from tierserver.errors import CommandError, PeerError
from tierserver.messages import LinkProbe, Probe, ProbeDirection
from tierserver.transport import Connection

_RTT_REPETITIONS = 5


def probe_link(command: Probe) -> LinkProbe:
    """Probe the link to the tier at the command's base URL."""
    if not 0 <= command.small_bytes < command.large_bytes or command.repetitions < 1:
        raise CommandError("probe needs 0 <= small_bytes < large_bytes and at least one repetition")
    connection = Connection(command.url)
    try:
        return _probe(connection, command)
    finally:
        connection.close()


def _probe(connection: Connection, command: Probe) -> LinkProbe:
    def down(count: int) -> None:
        _checked(connection, "GET", f"/probe?bytes={count}", b"")

    def up(count: int) -> None:
        _checked(connection, "POST", "/probe", bytes(count))

    down(0)  # opens the connection
    rtt_s = median(_timed(down, 0) for _ in range(max(_RTT_REPETITIONS, command.repetitions)))
    return LinkProbe(up=_direction(up, command), down=_direction(down, command), rtt_s=rtt_s)


def _direction(transfer: Callable[[int], None], command: Probe) -> ProbeDirection:
    small_s = median(_timed(transfer, command.small_bytes) for _ in range(command.repetitions))
    large_s = median(_timed(transfer, command.large_bytes) for _ in range(command.repetitions))
    if large_s <= small_s:
        raise CommandError(
            f"{command.large_bytes} bytes took no longer than {command.small_bytes}: no rate can be told; "
            "use a larger large_bytes"
        )
    rate = 8 * (command.large_bytes - command.small_bytes) / (large_s - small_s)
    return ProbeDirection(small_s, large_s, rate)


def _timed(transfer: Callable[[int], None], count: int) -> float:
    started = time.perf_counter()
    transfer(count)
    return time.perf_counter() - started


def _checked(connection: Connection, method: str, path: str, body: bytes) -> None:
    response = connection.request(method, path, pieces=(body,) if body else ())
    if response.status != 200:
        reason = bytes(response.body[:300]).decode("utf-8", "replace")
        raise PeerError(f"probe: {connection.base_url} answered {response.status}: {reason}", peer=connection.base_url)
