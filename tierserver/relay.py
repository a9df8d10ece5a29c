"""Streaming relay to a neighbour tier: no body is held whole, both directions flow at the same time.

The relay adds `tierwise-link: OWN-PEER;sent=N;received=N` to the answer, before what relays behind it added, and
overwrites `tierwise-tier` with its own name. Bytes are those on its link to the neighbour, heads and bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any
from urllib.parse import urlsplit

import httptools

from tierserver.asgi import Chunk, ClientGone, IncomingBody, Scope, Send, header
from tierserver.errors import PeerError
from tierserver.messages import SampleLink
from tierserver.transport import LINK_HEADER, TIER_HEADER, format_link

logger = logging.getLogger(__name__)
_CHUNK_BYTES = 262144
_CONNECT_TIMEOUT_S = 10.0
_SILENCE_S = 300.0  # as long as a tier waits for another's answer
# RFC 9110, section 7.6.1; besides, uvicorn answers `expect` itself, and `host` is written again.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive te trailer transfer-encoding upgrade expect host".split()
    + b"proxy-connection proxy-authorization proxy-authenticate".split()
)


class _NeighbourAnswer:
    """The neighbour's answer, as far as httptools has parsed it."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.body_bytes = 0
        self.head_done = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)
        self.body_bytes += len(data)

    def on_message_complete(self) -> None:
        self.complete = True


class _Channel:
    """One connection to the neighbour and what was written to it for the present request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.sent_bytes = 0

    async def write(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self.writer.write(data)
        await self.writer.drain()


class Relay:
    """The way to the neighbour `peer` at `base_url`; idle connections are kept for the next request."""

    def __init__(self, own: str, peer: str, base_url: str) -> None:
        address = urlsplit(base_url)
        self._link = f"{own}-{peer}"
        self._own = own.encode("latin-1")
        self._base_url = base_url
        self._host, self._port = address.hostname or "", address.port or 80
        self._netloc = address.netloc.encode("latin-1")
        self._prefix = address.path.rstrip("/").encode("latin-1")
        self._idle: list[_Channel] = []

    async def forward(self, scope: Scope, target: bytes, incoming: IncomingBody, send: Send) -> None:
        """Relay one request to `target` (path and query below the neighbour's base URL)."""
        channel = await self._open()
        upload = asyncio.create_task(self._upload(channel, scope, target, incoming))
        keep = False
        try:
            keep = await self._download(channel, upload, send)
        finally:
            # An upload that did not end leaves half a request on the connection.
            keep = keep and upload.done() and not upload.cancelled() and upload.exception() is None
            upload.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClientGone, OSError, Exception):
                await upload
            if keep:
                self._idle.append(channel)
            else:
                channel.writer.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().writer.close()

    async def _open(self) -> _Channel:
        while self._idle:
            channel = self._idle.pop()
            if not (channel.reader.at_eof() or channel.writer.is_closing()):
                channel.sent_bytes = 0
                return channel
            channel.writer.close()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                opened = await asyncio.open_connection(self._host, self._port, limit=_CHUNK_BYTES)
        except (OSError, TimeoutError) as error:
            raise PeerError(f"{self._link}: {self._base_url} is unreachable: {error}", peer=self._base_url) from error
        connection: socket.socket | None = opened[1].get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Channel(*opened)

    async def _upload(self, channel: _Channel, scope: Scope, target: bytes, incoming: IncomingBody) -> None:
        chunked = header(scope, b"transfer-encoding") is not None
        try:
            chunk = await incoming.next()
            # Head and first piece go out in one write, which is one packet for a small request.
            await channel.write(self._head(scope, target, chunked=chunked) + _framed(chunk, chunked))
            while chunk.more:
                chunk = await incoming.next()
                if chunk.data:
                    await channel.write(_framed(chunk, chunked))
            if chunked:
                await channel.write(b"0\r\n\r\n")
        except BaseException as error:
            if not isinstance(error, OSError):  # a neighbour that stopped reading may have answered already
                channel.writer.close()  # wakes the download, which otherwise waits for an answer that cannot come
            raise

    def _head(self, scope: Scope, target: bytes, *, chunked: bool) -> bytes:
        method: bytes = scope["method"].encode("latin-1")
        lines = [method + b" " + self._prefix + target + b" HTTP/1.1", b"host: " + self._netloc]
        connection = (header(scope, b"connection") or "").lower().encode("latin-1")
        # A client that names content-length in `Connection` must not take the body's length from the request.
        dropped = _HOP_BY_HOP | {name.strip() for name in connection.split(b",")} - {b"content-length"}
        lines += [name + b": " + value for name, value in scope["headers"] if name not in dropped]
        if chunked:
            lines.append(b"transfer-encoding: chunked")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def _download(self, channel: _Channel, upload: asyncio.Task[None], send: Send) -> bool:
        """Stream the answer; return whether the connection can be used again."""
        answer = _NeighbourAnswer()
        parser = httptools.HttpResponseParser(answer)
        fed, started = 0, False
        while not answer.complete:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    data = await channel.reader.read(_CHUNK_BYTES)
                fed += len(data)
                parser.feed_data(data)
                if not data:
                    raise ConnectionResetError("connection closed before the answer's end")
            except (OSError, httptools.HttpParserError) as error:
                self._broken(upload, error, started=started)
                return False
            if answer.head_done and not started:
                started = True
                await send(self._start(channel, answer, parser, fed))
            if answer.pieces and not answer.complete:
                body, answer.pieces = b"".join(answer.pieces), []
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"".join(answer.pieces)})
        return bool(parser.should_keep_alive())

    def _broken(self, upload: asyncio.Task[None], error: Exception, *, started: bool) -> None:
        if upload.done() and not upload.cancelled():
            # A client that left or stalled is the cause of the broken answer, so its error is the one to report.
            failure = upload.exception()
            if failure is not None and not isinstance(failure, OSError):
                raise failure
        if not started:
            raise PeerError(f"{self._link}: no answer from {self._base_url}: {error}", peer=self._base_url) from error
        logger.warning("%s: the answer broke off: %s", self._link, error)

    def _start(self, channel: _Channel, answer: _NeighbourAnswer, parser: Any, fed: int) -> dict[str, Any]:
        answered = dict(answer.headers)
        # The head goes on before the body is whole, so the bytes still to come are those that it announces.
        length = int(answered.get(b"content-length", b"0"))
        received = fed - answer.body_bytes + length
        link = format_link(SampleLink(self._link, channel.sent_bytes, received)).encode("latin-1")
        further = answered.get(LINK_HEADER.encode())
        ours = (LINK_HEADER.encode(), TIER_HEADER.encode())
        headers = [(n, v) for n, v in answer.headers if n not in _HOP_BY_HOP and n not in ours]
        headers.append((LINK_HEADER.encode(), link if further is None else link + b", " + further))
        headers.append((TIER_HEADER.encode(), self._own))
        return {"type": "http.response.start", "status": parser.get_status_code(), "headers": headers}


def _framed(chunk: Chunk, chunked: bool) -> bytes:
    if not chunked or not chunk.data:
        return chunk.data
    return b"%x\r\n%b\r\n" % (len(chunk.data), chunk.data)
