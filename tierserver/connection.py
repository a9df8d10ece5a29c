"""The connection under the application: what uvicorn leaves unlimited is limited here.

uvicorn's protocol takes heads of any size, waits for them without end, queues every pipelined request it reads, goes
on reading after an early answer, and waits for ever for a client that does not read its own. Each has a limit here, and
a connection that ends informs all its requests.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tierserver.errors import TierError
from tierserver.limits import Limits

EXTENSION = "tierwise.intake"
_READ_BYTES = 2**20


class IntakeOwner(Protocol):
    """The connection's own protocol."""

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def intake_ended(self) -> None:
        """Take note that the body is complete."""


class Intake(asyncio.BufferedProtocol):
    """Receives into `room`; `on_bytes` gets the size of each read and may refuse it by raising."""

    def __init__(self, owner: IntakeOwner, room: memoryview, on_bytes: Callable[[int], None]) -> None:
        self._owner = owner
        self._room = room
        self._on_bytes = on_bytes
        self._is_kept = True
        self.left = len(room)
        self.refusal: TierError | None = None
        self.ended = asyncio.Event()

    def discard(self) -> None:
        """Read the rest and drop it, so that the client sees the answer and the connection can be used again."""
        if self.left and self._is_kept:
            self._is_kept = False
            self._room = memoryview(bytearray(min(self.left, _READ_BYTES)))

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._is_kept:
            start = len(self._room) - self.left
            return self._room[start : start + _READ_BYTES]
        return self._room[: self.left]

    def buffer_updated(self, nbytes: int) -> None:
        self.left -= nbytes
        if self._is_kept:
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
        """Let the transport close."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()


class _RequestRefused(Exception):
    """Stops the parser from inside one of its callbacks."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._awaits_head = True
        self._since = time.monotonic()
        self._head_bytes = 0
        self._idle_bytes = 0  # read since the last byte that belongs to a head or to a body that is still wanted
        self._deadline: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, str] | None = None
        self._unanswered: deque[RequestResponseCycle] = deque()

    # -- the connection -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn has counted this connection already, so the limit itself is still allowed.
        if len(self.connections) > self._limits.max_connections and not self._make_room():
            transport.abort()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._writing is not None:
            self._writing.cancel()
        self._abandon()
        super().connection_lost(exc)

    def _abandon(self) -> None:
        """Tell every request that its client is gone; uvicorn tells only the last one that it has read."""
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self._unanswered.clear()

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for its client's next request."""
        # Only a connection between two requests gives way to a newcomer: no request is cut off for it.
        waiting = [
            connection
            for connection in self.connections
            if isinstance(connection, GuardedProtocol) and connection._is_waiting()
        ]
        if not (waiting := [connection for connection in waiting if connection is not self]):
            return False
        min(waiting, key=lambda connection: connection._since).transport.abort()
        return True

    def _is_waiting(self) -> bool:
        return self._awaits_head and (self.cycle is None or self.cycle.response_complete)

    # -- reading ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        # A kept connection's clock starts with the first byte of the next request, not while it is idle.
        if self._awaits_head and self._deadline is None:
            self._arm()
        self._idle_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._awaits_head and self._idle_bytes > self._limits.max_head_bytes:
            self._refuse(431, f"the head of a request has at most {self._limits.max_head_bytes} bytes")
        elif not self._awaits_head and self._idle_bytes > self._most_idle_bytes():
            self.transport.abort()

    def _most_idle_bytes(self) -> int:
        """Return the limit of idle bytes: framing is short, but a refused body is drained so that its sender sees
        why."""
        return 2 * self._limits.max_body_bytes if self.cycle.response_complete else self._limits.max_head_bytes

    def take(self, room: memoryview, on_bytes: Callable[[int], None]) -> Intake:
        """Receive the rest of the present body into `room`: an ASGI extension of the scope."""
        intake = Intake(self, room, on_bytes)
        # A closing connection delivers nothing more, and its end may have been told to the former protocol already.
        if self.transport.is_closing():
            intake.ended.set()
        self._set_protocol(intake)
        return intake

    def intake_ended(self) -> None:
        self.parser = httptools.HttpRequestParser(self)  # the old one still waits for the body
        self._set_protocol(self)
        self.on_message_complete()

    def _set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self.transport.set_protocol(protocol)
            # uvicorn may have paused reading itself; if its flag did not follow, it would never pause again.
            self.flow.read_paused = False
            self.transport.resume_reading()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {"take": self.take}}
        self._head_bytes = 0
        if len(self.pipeline) >= self._limits.max_pipelined:
            self._stop(400, f"at most {self._limits.max_pipelined} requests are taken before the first is answered")

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # The 4 are the colon, the blank and the line end, which the parser does not pass on.
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._awaits_head = False
        self._idle_bytes = 0
        self._disarm()
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        if not self.cycle.response_complete:
            self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._awaits_head = True
        self._since = time.monotonic()
        self._idle_bytes = 0
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._since = time.monotonic()
        if self._unanswered:
            self._unanswered.popleft()
        if not self._awaits_head:
            self._arm()  # answered early: the rest of the body is read, but not for long
        super().on_response_complete()

    def _count(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._limits.max_head_bytes:
            self._stop(431, f"the head of a request has at most {self._limits.max_head_bytes} bytes")

    # -- refusing -----------------------------------------------------------------------------------------------

    def _stop(self, status: int, reason: str) -> None:
        self._refusal = (status, reason)
        raise _RequestRefused

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser, or one of its callbacks, does not accept."""
        status, reason = self._refusal or (400, "this is not a well-formed request")
        self._refuse(status, reason)

    def _refuse(self, status: int, reason: str) -> None:
        """Answer and close; only close if another answer is due or has begun."""
        self._disarm()
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not (self.pipeline or begun):
            body = json.dumps({"error": reason}).encode()
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self._abandon()
        self.transport.close()

    # -- time ---------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self._later(self._limits.head_timeout_s, self._too_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if self._awaits_head and self._idle_bytes and not self.transport.is_closing():
            self._refuse(408, f"the head of a request must come within {self._limits.head_timeout_s:g} s")
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        # No buffer has -1 bytes, so the first look never ends the connection.
        self._watch_writing(-1)

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _watch_writing(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left == before:
            self.transport.abort()
            return
        self._writing = self._later(self._limits.write_timeout_s, lambda: self._watch_writing(left))

    def _later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(delay_s, call)
