"""The data plane: Open Inference Protocol v2 over HTTP, the probe's endpoint, and the relays. Raw ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from tierserver import protocol
from tierserver.asgi import (
    Answer,
    BodyReader,
    ByteBudget,
    ClientGone,
    IncomingBody,
    Receive,
    Scope,
    Send,
    header,
    send_answer,
)
from tierserver.errors import MethodNotAllowed, NotFound, RequestError, TierError, TooLarge, TooSlow, UnsupportedMedia
from tierserver.limits import MEMORY, Limits
from tierserver.pipeline import InferenceResult, Serving, Tier
from tierserver.relay import Relay
from tierserver.transport import TIER_HEADER, Arrivals

logger = logging.getLogger(__name__)
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
