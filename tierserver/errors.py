"""What can go wrong in a tier; `status` is the HTTP status a client gets for it.

TierError                 500
├── RequestError          400  a request that is not Open Inference Protocol, or not acceptable
│   ├── Unauthorized      401  a control request without this tier server's token
│   ├── Forbidden         403  a control request that a web page made
│   ├── NotFound          404  no such path, model, version or route
│   ├── MethodNotAllowed  405
│   ├── TooSlow           408  the body stopped arriving
│   ├── Busy              409  another runner holds this tier server
│   ├── TooLarge          413  more bytes or pixels than the tier takes
│   ├── UnsupportedMedia  415  a content encoding that is not spoken here
│   └── TooBusy           429  too many bytes of other requests are held already
├── CommandError          400  a control command that cannot be read or carried out
├── EngineError           500  a model that cannot be loaded or run
└── PeerError             502  the next tier is unreachable or refused
"""

from __future__ import annotations

from typing import ClassVar


class TierError(Exception):
    """Root of everything this package raises on purpose."""

    status: ClassVar[int] = 500


class RequestError(TierError):
    status = 400


class Unauthorized(RequestError):
    status = 401


class Forbidden(RequestError):
    status = 403


class Busy(RequestError):
    status = 409


class NotFound(RequestError):
    status = 404


class MethodNotAllowed(RequestError):
    status = 405


class TooSlow(RequestError):
    status = 408


class TooLarge(RequestError):
    status = 413


class UnsupportedMedia(RequestError):
    status = 415


class TooBusy(RequestError):
    status = 429


class CommandError(TierError):
    status = 400


class EngineError(TierError):
    status = 500


class PeerError(TierError):
    """The next tier is unreachable, refused, or answered something that is not the protocol."""

    # Bad Gateway (RFC 9110, section 15.6.3): the fault lies behind this tier, not in it.
    status = 502

    def __init__(self, message: str, *, peer: str, peer_status: int | None = None) -> None:
        super().__init__(message)
        self.peer = peer
        self.peer_status = peer_status
