"""The rest of a body, received by the kernel straight into the buffer where it will be decoded.

On the way through parser and ASGI each byte would be copied five times. So while a body of declared length comes in,
the transport's protocol is this one; the connection's own protocol and a fresh parser take over after its last byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tierserver.errors import TierError

EXTENSION = "tierwise.intake"
_READ_BYTES = 2**20


class Owner(Protocol):
    """The connection's own protocol."""

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def intake_ended(self) -> None:
        """The body is complete."""


class Intake(asyncio.BufferedProtocol):
    """Fills `room`; `on_bytes` is told of each read and may refuse by raising."""

    def __init__(self, owner: Owner, room: memoryview, on_bytes: Callable[[int], None]) -> None:
        self._owner = owner
        self._room = room
        self._on_bytes = on_bytes
        self._wanted = True
        self.left = len(room)
        self.refusal: TierError | None = None
        self.ended = asyncio.Event()

    def discard(self) -> None:
        """Nobody wants the rest: read it away, so that the answer is seen and the connection can be used again."""
        if self.left and self._wanted:
            self._wanted = False
            self._room = memoryview(bytearray(min(self.left, _READ_BYTES)))

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._wanted:
            start = len(self._room) - self.left
            return self._room[start : start + _READ_BYTES]
        return self._room[: self.left]

    def buffer_updated(self, nbytes: int) -> None:
        self.left -= nbytes
        if self._wanted:
            try:
                self._on_bytes(nbytes)
            except TierError as error:
                self.refusal = error
                self.discard()
                self.ended.set()
        if not self.left:
            self.ended.set()
            self._owner.intake_ended()

    def eof_received(self) -> None:
        """The transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()
