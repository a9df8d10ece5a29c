"""The data plane: Open Inference Protocol v2 over HTTP, the probe's endpoint, and the relays. Raw ASGI.

Streaming relay to a neighbour tier: no body is held whole, both directions flow at the same time. The relay adds
`tierwise-link: OWN-PEER;sent=N;received=N` to the answer, before what relays behind it added, and overwrites
`tierwise-tier` with its own name. Bytes are those on its link to the neighbour, heads and bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httptools

from tierserver import protocol
from tierserver.asgi import (
    Answer,
    BodyReader,
    ByteBudget,
    Chunk,
    ClientGone,
    IncomingBody,
    Receive,
    Scope,
    Send,
    header,
    send_answer,
)
from tierserver.errors import (
    MethodNotAllowed,
    NotFound,
    PeerError,
    RequestError,
    TierError,
    TooLarge,
    TooSlow,
    UnsupportedMedia,
)
from tierserver.limits import MEMORY, Limits
from tierserver.messages import SampleLink
from tierserver.pipeline import InferenceResult, Serving, Tier
from tierserver.transport import LINK_HEADER, TIER_HEADER, Arrivals, format_link

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


_MAX_PROBE_BYTES = 2**31
_MODEL_VERSION = "1"
_ZEROS = memoryview(bytes(262144))


class TierApp:
    """The ASGI application of one tier."""

    def __init__(self, tier: Tier, limits: Limits) -> None:
        self._tier = tier
        self._limits = limits
        self._budget = ByteBudget(limits.max_held_bytes)
        self._bodies = BodyReader(limits, self._budget)
        self._headers = ((TIER_HEADER.encode(), tier.name.encode("latin-1")),)
        # One worker: single stream is what is measured, and the loop stays free for relays and health checks.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="infer")
        self._relays: dict[str, Relay] = {}
        self._relays_of: Serving | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await self._route(scope, receive, send)
        except ClientGone:
            return
        except TierError as error:
            answer = _refused(error)
        except Exception:
            logger.exception("request failed: %s %s", scope["method"], scope["path"][:200])
            answer = Answer.of_json({"error": "internal error; the tier's log has the reason"}, status=500)
        if answer is not None:
            await send_answer(send, answer, self._headers)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> Answer | None:
        method, path = scope["method"], scope["path"].strip("/").split("/")
        match path:
            case ["tiers", name, *_]:
                _allow(method, "GET", "POST")
                await self._relay(name, scope, receive, send)
                return None
            case ["v2", "models", model, "versions", version, *rest]:
                if version != _MODEL_VERSION:
                    raise NotFound(
                        f"unknown version {version[:40]!r} of {model[:80]!r}; there is only {_MODEL_VERSION}"
                    )
                return await self._model(method, model, rest, scope, receive, send)
            case ["v2", "models", model, *rest]:
                return await self._model(method, model, rest, scope, receive, send)
            case ["probe"]:
                return await self._probe(method, scope, receive)
            case ["v2", "repository", "index"]:
                _allow(method, "POST", "GET")
                names = self._tier.model_names()
                return Answer.of_json([{"name": n, "version": _MODEL_VERSION, "state": "READY"} for n in names])
            case ["v2", "health", "live" | "ready"]:
                _allow(method, "GET")
                return Answer(200, ())
            case ["v2"]:
                _allow(method, "GET")
                return Answer.of_json(self._server_metadata())
        raise NotFound(f"no such path {scope['path'][:80]!r}; try GET /v2 or POST /v2/repository/index")

    # -- models -------------------------------------------------------------------------------------------------

    async def _model(
        self, method: str, model: str, rest: list[str], scope: Scope, receive: Receive, send: Send
    ) -> Answer | None:
        match rest:
            case ["infer"]:
                _allow(method, "POST")
                await self._infer(model, scope, receive, send)
                return None
            case ["ready"]:
                _allow(method, "GET")
                self._tier.find(model)
                return Answer(200, ())
            case []:
                _allow(method, "GET")
                # A part with a next tier asks that tier for its outputs, which would block the loop.
                return await asyncio.get_running_loop().run_in_executor(self._worker, self._metadata, model)
        raise NotFound(f"no such path below a model: {'/'.join(rest)[:80]!r}; there are infer and ready")

    def _metadata(self, model: str) -> Answer:
        target = self._tier.find(model)
        about = {"name": model, "versions": [_MODEL_VERSION], "platform": "onnxruntime_onnx"}
        return Answer.of_json({**about, **target.part.metadata(bare=target.bare)})

    def _server_metadata(self) -> dict[str, Any]:
        # Imported where it is needed: a tier that runs no part starts without the engine.
        from tierserver.engine import VERSION

        return {"name": f"tierwise {self._tier.name}", "version": VERSION, "extensions": ["binary_tensor_data"]}

    async def _infer(self, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._tier.find(model)  # refused before the body is read
        encoding = header(scope, b"content-encoding")
        if encoding not in (None, "identity"):
            raise UnsupportedMedia(f"content-encoding {encoding!r} is not spoken here; send the body as it is")
        length = header(scope, protocol.HEADER_LENGTH.encode())
        loop = asyncio.get_running_loop()
        async with self._bodies.reading(scope, receive) as body:
            answer = await loop.run_in_executor(self._worker, self._run, model, body, length)
        # The body's bytes are no longer counted, so nothing may hold them while the answer is sent.
        del body
        if answer.size_bytes > self._limits.max_held_bytes:
            raise TooLarge(f"the answer has {answer.size_bytes} bytes; allowed: {self._limits.max_held_bytes}")
        with self._budget.holding(answer.size_bytes):
            await send_answer(send, answer, self._headers)

    def _run(self, model: str, body: memoryview, header_length: str | None) -> Answer:
        target = self._tier.find(model)
        started = time.perf_counter()
        request = protocol.decode_request(
            body,
            header_length,
            max_bytes=self._limits.max_body_bytes,
            max_json_bytes=self._limits.max_json_bytes,
        )
        decoded = time.perf_counter()
        with MEMORY.bounded() if target.part.session.has_free_sizes else contextlib.nullcontext():
            outcome = target.part.run_graph(request.inputs) if target.bare else target.part.run(request.inputs)
        computed = time.perf_counter()

        def parameters() -> dict[str, str]:
            return _reported(outcome, decoded - started + time.perf_counter() - computed)

        encoded = protocol.encode_response(model, request, outcome.outputs, parameters)
        if encoded.header_length is None:
            return Answer(200, encoded.pieces)
        extra = (protocol.HEADER_LENGTH.encode(), str(encoded.header_length).encode())
        return Answer(200, encoded.pieces, (extra,), b"application/octet-stream")

    # -- probe and relay ----------------------------------------------------------------------------------------

    async def _probe(self, method: str, scope: Scope, receive: Receive) -> Answer:
        _allow(method, "GET", "POST")
        if method == "GET":
            return self._zeros(scope)
        small_bytes = _count(scope, "small")
        incoming, more, arrivals = IncomingBody(receive, timeout_s=self._limits.read_timeout_s), True, Arrivals()
        while more:
            more = (await incoming.next()).more
            arrivals.add(incoming.received_bytes)
        answer: dict[str, Any] = {"received_bytes": incoming.received_bytes}
        return Answer.of_json(answer | ({} if small_bytes is None else arrivals.after(small_bytes).to_json()))

    def _zeros(self, scope: Scope) -> Answer:
        whole, rest = divmod(_count(scope, "bytes") or 0, len(_ZEROS))
        pieces = (*(_ZEROS for _ in range(whole)), *((_ZEROS[:rest],) if rest else ()))
        return Answer(200, pieces, content_type=b"application/octet-stream")

    async def _relay(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        # The undecoded path, so that percent-encoded names arrive as they were sent.
        raw = bytes(scope.get("raw_path") or scope["path"].encode())
        target = b"/" + b"/".join(raw.lstrip(b"/").split(b"/")[2:])
        if scope["query_string"]:
            target += b"?" + bytes(scope["query_string"])
        incoming = IncomingBody(receive, timeout_s=self._limits.read_timeout_s)
        await self._relay_to(name).forward(scope, target, incoming, send)

    def _relay_to(self, name: str) -> Relay:
        serving = self._tier.serving
        if serving is not self._relays_of:
            for relay in self._relays.values():
                relay.close()
            self._relays = {peer: Relay(self._tier.name, peer, url) for peer, url in serving.routes.items()}
            self._relays_of = serving
        if name not in self._relays:
            raise NotFound(f"no route to tier {name[:80]!r}; known: {', '.join(self._relays) or 'none'}")
        return self._relays[name]


def _count(scope: Scope, name: str) -> int | None:
    """Return a number of bytes from the query; None where the query does not name it."""
    values = parse_qs(scope["query_string"].decode("latin-1")).get(name)
    if not values:
        return None
    requested = values[-1]
    # `isdigit` alone lets characters such as a superscript two through, which `int` refuses.
    if not (requested.isascii() and requested.isdigit()) or len(requested) > 12 or int(requested) > _MAX_PROBE_BYTES:
        raise RequestError(f"{name}: got {requested[:40]!r}; allowed: 0 to {_MAX_PROBE_BYTES}")
    return int(requested)


def _refused(error: TierError) -> Answer:
    """Return the answer for an error; do not wait any longer for a client that is too slow."""
    ending = ((b"connection", b"close"),) if isinstance(error, TooSlow) else ()
    return Answer(error.status, (json.dumps({"error": str(error)}).encode(),), ending)


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise MethodNotAllowed(f"method {method[:20]} is not allowed here; allowed: {', '.join(allowed)}")


def _reported(outcome: InferenceResult, serialise_s: float) -> dict[str, str]:
    """Return the report as JSON in strings: the protocol's parameters hold scalars only."""
    own = outcome.parts[0]
    parts = (replace(own, serialise_s=own.serialise_s + serialise_s), *outcome.parts[1:])
    return {
        "tierwise_parts": json.dumps([part.to_json() for part in parts]),
        "tierwise_links": json.dumps([link.to_json() for link in outcome.links]),
    }
