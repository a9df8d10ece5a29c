"""The address of a Dask scheduler: beyond this machine only with TLS, since tasks are code that workers run."""

import ipaddress
from urllib.parse import urlsplit

from runner.errors import FleetError

_ALLOWED = "allowed: tcp://127.0.0.1:PORT on this machine, tls://HOST:PORT beyond it"
_HOW = "docs/fleet.md says how to start a scheduler"


def check_scheduler(url: str) -> None:
    """Refuse an address that is not a scheduler's, or that would be used unencrypted; raises FleetError."""
    try:
        parts = urlsplit(url)
        complete = bool(parts.hostname) and parts.port is not None
    except ValueError:
        complete = False
    if not complete or parts.scheme not in ("tcp", "tls"):
        raise FleetError(f"{url!r} is not the address of a Dask scheduler; {_ALLOWED}. {_HOW}")
    if parts.scheme == "tcp" and not is_loopback(parts.hostname or ""):
        raise FleetError(
            f"{url} leaves this machine without TLS, and every client of a scheduler can run code on its workers; "
            f"{_ALLOWED}. docs/fleet.md says how to make the certificates"
        )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine by its own loopback.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("192.0.2.7")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
