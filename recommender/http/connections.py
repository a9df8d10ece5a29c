"""Limits on connections, which uvicorn leaves unlimited; they apply before any key is checked.

uvicorn's protocol collects heads of any size, waits for heads and bodies without end, and treats 1000 connections of
one client like those of 1000 clients. Sizes, times and shares are settings (`recommender.settings`).
"""

import asyncio
import ipaddress
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from recommender.errors import (
    BodyTooLarge,
    HeadTooLarge,
    MalformedRequest,
    NoRoom,
    RecommenderError,
    RequestTimeout,
    TooManyRequests,
)
from recommender.http.draining import Drain
from recommender.http.middleware import REFUSED, RequestRecorder, declared_bytes
from recommender.http.problems import problem_response
from recommender.settings import RecommenderSettings

# Where the application finds the name of the client that a request counts for, in its scope.
CLIENT = "tierwise.client"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MOST_PIPELINED = 16
_FRAMING_FACTOR = 8  # a chunk of one byte takes six bytes on the wire
# After a refusal input is dropped for this long, up to this much, before the close (RFC 9112, section 9.6).
_LINGER_S = 2.0
_LINGER_BYTES = 2**20


class _Refused(Exception):
    """Stops the parser from inside one of its callbacks."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection; `running` counts the requests under way per client, over all connections."""

    def __init__(
        self,
        *arguments: Any,
        settings: RecommenderSettings,
        running: Counter[str],
        recorder: RequestRecorder,
        drain: Drain,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._drain = drain
        self._settings = settings
        self._running = running
        self._recorder = recorder
        self._peer = ""
        self._waits_since = time.monotonic()  # for the client: for its next request, or for the rest of one
        self._awaits_head = True
        self._read_bytes = 0  # raw, of the present head or of the present body
        self._head_bytes = 0
        self._header_lines = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._error: RecommenderError | None = None
        self._refused = False
        self._unanswered: deque[RequestResponseCycle] = deque()

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        self._peer = client_name(address)
        # The application is wrapped for each connection, because the peer is known only now.
        self.app = _Share(self.app, address, self._settings, self._running, self._recorder)
        connections = [other for other in self.connections if isinstance(other, GuardedProtocol)]
        is_proxy = _is_within(address, self._settings.trusted_proxies)
        # Many clients share a proxy's connections; `_Share` counts their requests apart.
        own = [] if is_proxy else [other for other in connections if other._peer == self._peer]
        allowed = self._settings.max_client_connections
        if len(own) > allowed and not self._make_room(own):
            self._refuse(TooManyRequests(f"{allowed} connections are open from {self._peer}, the most for one client"))
        elif len(connections) > self._settings.max_connections and not self._make_room(connections):
            self._refuse(NoRoom(self._settings.max_connections))
        else:
            self._expire_after(self._settings.max_head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._writing):
            if timer is not None:
                timer.cancel()
        self._abandon()
        super().connection_lost(exc)

    def _make_room(self, crowd: Sequence["GuardedProtocol"]) -> bool:
        """Close the connection that has waited longest for its client, of the client with the most connections."""
        sizes = Counter(connection._peer for connection in crowd)
        waiting = [connection for connection in crowd if connection is not self and connection._awaits_client()]
        if not waiting:
            return False
        victim = min(waiting, key=lambda connection: (-sizes[connection._peer], connection._waits_since))
        victim.transport.abort()
        self.connections.discard(victim)  # it is lost only in the loop's next turn, when others may have come
        return True

    def _awaits_client(self) -> bool:
        """Return whether nothing is being computed: no request, or one whose head or body is incomplete."""
        # With more than one unanswered, an earlier request is computed while the body of this one arrives.
        answered = self.cycle is None or self.cycle.response_complete
        return self._refused or answered or (not self._awaits_head and len(self._unanswered) == 1)

    # -- reading -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._read_bytes += len(data)
        if self._refused:
            if self._read_bytes > _LINGER_BYTES:
                self.transport.abort()
            return
        # The first bytes of a later request: its head has as long as the first one had.
        if self._awaits_head and self._deadline is None:
            self._expire_after(self._settings.max_head_s)
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        # Raw bytes, because the parser reports neither a header without an end nor the framing of chunks.
        if self._awaits_head and self._read_bytes > self._settings.max_head_bytes:
            self._refuse(self._head_error())
        elif not self._awaits_head and self._read_bytes > _FRAMING_FACTOR * self._settings.max_body_bytes:
            self._refuse(BodyTooLarge(self._settings.max_body_bytes))

    def eof_received(self) -> None:
        """Let the transport close; a client that stops in the middle of a request gets no answer."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._header_lines = 0
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._stop(TooManyRequests(f"{_MOST_PIPELINED} requests of this connection wait for an earlier answer"))

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count headers, and the trailers of a chunked body, which come the same way."""
        self._header_lines += 1
        # The 4 bytes are the colon, the space and the line's end.
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _count(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._settings.max_head_bytes or self._header_lines > self._settings.max_header_lines:
            self._stop(self._head_error())

    def _head_error(self) -> HeadTooLarge:
        return HeadTooLarge(self._settings.max_head_bytes, self._settings.max_header_lines)

    def on_headers_complete(self) -> None:
        if declared_bytes(self.headers) > self._settings.max_body_bytes:
            self._stop(BodyTooLarge(self._settings.max_body_bytes))
        self._awaits_head = False
        self._read_bytes = 0
        self._expire_after(self._settings.max_body_s)
        super().on_headers_complete()
        # The client of a service that stops begins its next request on another connection, which may lead elsewhere.
        if self._drain.begun:
            self.cycle.keep_alive = False
        self._unanswered.append(self.cycle)

    def on_message_complete(self) -> None:
        self._awaits_head = True
        self._read_bytes = 0
        super().on_message_complete()
        if self.cycle.response_complete:
            self._expire_after(self._settings.max_idle_s)  # it was answered before its body had come
        else:
            self._cancel_deadline()

    def on_response_complete(self) -> None:
        self._waits_since = time.monotonic()
        if self._unanswered:
            self._unanswered.popleft()
        super().on_response_complete()

    # -- refusing ------------------------------------------------------------------------------------------------

    def _stop(self, error: RecommenderError) -> None:
        self._error = error
        raise _Refused

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser, or a callback of it, does not take."""
        self._refuse(self._error or MalformedRequest())

    def _refuse(self, error: RecommenderError) -> None:
        """Answer and close; only close where another answer is due or has begun."""
        self._refused = True
        due = [cycle for cycle in self._unanswered if not cycle.response_complete]
        if not due or (len(due) == 1 and not self._awaits_head and not due[0].response_started):
            self._answer(error, due[0] if due else None)
        self._abandon()
        # Closing at once would reset the connection under a client that still sends, before it reads the answer.
        self._read_bytes = 0
        self._expire_after(_LINGER_S)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _answer(self, error: RecommenderError, cycle: RequestResponseCycle | None) -> None:
        """Write a whole response, for a request that never reaches the application as a whole."""
        response = problem_response(error, "/" if cycle is None else cycle.scope["path"])
        response.headers["connection"] = "close"
        head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
        body = bytes(response.body)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + body)
        # A request with a complete head is under way, and noted when it ends.
        if cycle is not None:
            cast(dict[str, Any], cycle.scope)[REFUSED] = response.status_code
        else:
            self._recorder.refused(client=self._peer, status=response.status_code, sent_bytes=len(body))

    def _abandon(self) -> None:
        """Mark every request as disconnected; uvicorn marks only the last one that it has read."""
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self._unanswered.clear()
        self.pipeline.clear()

    # -- time ----------------------------------------------------------------------------------------------------

    def _expire_after(self, delay_s: float) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(delay_s, self._expire, delay_s)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self, delay_s: float) -> None:
        self._deadline = None
        if self._refused or (self._awaits_head and not self._read_bytes):
            self.transport.abort()  # silent: there is no request that an answer could belong to
        elif self.flow.read_paused and self.pipeline:
            self._expire_after(delay_s)  # the rest may lie in the socket until an earlier request is answered
        elif not self.transport.is_closing():
            self._refuse(RequestTimeout("head" if self._awaits_head else "body", delay_s))

    def pause_writing(self) -> None:
        super().pause_writing()
        # No buffer has this size, so the first look only takes note of it.
        self._watch_writing(-1)

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _watch_writing(self, before_bytes: int) -> None:
        """Close the connection of a client that takes nothing of its answer for a while."""
        left_bytes = self.transport.get_write_buffer_size()
        if left_bytes == before_bytes:
            self.transport.abort()
            return
        self._writing = self.loop.call_later(self._settings.max_write_s, self._watch_writing, left_bytes)


class _Share:
    """Run the application for one connection, within what its client may have under way at once."""

    def __init__(
        self,
        app: ASGIApp,
        address: str,
        settings: RecommenderSettings,
        running: Counter[str],
        recorder: RequestRecorder,
    ) -> None:
        self._recorder = recorder
        self._app = app
        self._address = address
        self._settings = settings
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = requesting_client(self._address, scope["headers"], self._settings.trusted_proxies)
        allowed = self._settings.max_client_requests
        if self._running[client] >= allowed:
            error = TooManyRequests(f"{allowed} requests of {client} are under way, the most for one client")
            response = problem_response(error, scope["path"])
            await response(scope, receive, send)
            sent_bytes = len(bytes(response.body))
            self._recorder.refused(client=client, status=response.status_code, sent_bytes=sent_bytes, scope=scope)
            return
        self._running[client] += 1
        scope[CLIENT] = client
        try:
            await self._app(scope, receive, send)
        finally:
            self._running[client] -= 1
            # An entry for every client that ever came would let the table grow without end.
            if not self._running[client]:
                del self._running[client]


def client_name(address: str) -> str:
    """Return the client of an address: each IPv4 address is one, and each /64 of IPv6 addresses."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed or address[:64])


def requesting_client(address: str, headers: Iterable[tuple[bytes, bytes]], proxies: Sequence[_Network]) -> str:
    """Return the client behind a trusted proxy: the last address in X-Forwarded-For that is not a trusted proxy."""
    if _is_within(address, proxies):
        hops = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1").split(",")
        # From the right: what stands left of the last trusted proxy is whatever the client wrote.
        for hop in map(_without_port, reversed(hops)):
            if hop and not _is_within(hop, proxies):
                return client_name(hop)
    return client_name(address)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, IPv4 where IPv6 only wraps it; None for anything else, such as a Unix socket's path."""
    try:
        # A link-local address may name its zone after a % (RFC 4007, section 11).
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _is_within(address: str, networks: Iterable[_Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def _without_port(hop: str) -> str:
    hop = hop.strip()
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    # Several colons make an IPv6 address without brackets, which has no port.
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
