"""ASGI middleware around every resource: access, the time limit, the body limit and security headers."""

import asyncio
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recommender.errors import BodyTooLarge, Exposed, NotAuthorized, RecommenderError, RequestTooSlow, WrongHost
from recommender.http.problems import problem_response
from recommender.settings import is_loopback

# They show no evidence: the page and the documentation can be loaded, probes need no secret.
_OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
_PAGES = frozenset({"/", "/docs"})
_OPEN_PREFIXES = ("/page/", "/docs/static/")


class ApiKey:
    """Refuses a request without the key, in `Authorization: Bearer` or `X-API-Key`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _open(scope["path"]) or self._has_key(scope["headers"]):
            await self._app(scope, receive, send)
            return
        await problem_response(NotAuthorized(), scope["path"])(scope, receive, send)

    def _has_key(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        for name, value in headers:
            # In constant time, so that the time of a refusal tells nothing about the key.
            if name == b"x-api-key" and hmac.compare_digest(value, self._key):
                return True
            scheme, _, credentials = value.partition(b" ")
            if name == b"authorization" and scheme.lower() == b"bearer" and hmac.compare_digest(credentials, self._key):
                return True
        return False


class LocalOnly:
    """Without a key: refuses requests from other machines, and those that a page of another site makes a browser send.

    Listening on loopback keeps neither out by itself: an ASGI server may listen on any address, and a
    site may have its own name resolve to 127.0.0.1 (DNS rebinding), which only the Host header gives away.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", host)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._why_not(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
            return
        await problem_response(refused, scope["path"])(scope, receive, send)

    def _why_not(self, scope: Scope) -> RecommenderError | None:
        # Both ends: another server may listen beyond loopback, or believe a header that names the client.
        for address in (scope.get("server"), scope.get("client")):
            if address and _is_elsewhere(str(address[0])):
                return Exposed(str(address[0]))
        for name, value in scope["headers"]:
            if name == b"host" and not self._is_ours(_without_port(value.decode("latin-1"))):
                return WrongHost(value.decode("latin-1"), self._names)
        return None

    def _is_ours(self, name: str) -> bool:
        return name.lower() in self._names or is_loopback(name)


class TimeLimit:
    """Answers for a request that takes too long, because of the client or of the service."""

    def __init__(self, app: ASGIApp, limit_s: float) -> None:
        self._app = app
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._limit_s) as limit:
                await self._app(scope, receive, noted)
        except TimeoutError:
            # A response that has begun cannot be replaced; a TimeoutError within the limit is the application's own.
            if begun or not limit.expired():
                raise
            response = problem_response(RequestTooSlow(self._limit_s), scope["path"])
            # The rest of this request must not be taken for the next one.
            response.headers["connection"] = "close"
            await response(scope, receive, send)


class SafeHeaders:
    """Security headers: nothing is loaded from other hosts, framed or sniffed; only the API page has inline script.

    Answers are stored by no cache, which could serve them without the key; the pages' files are asked for again at
    every visit, so that a new version never meets an old page.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = _INLINE_POLICY if scope["path"] == "/docs" else _POLICY
                headers = list(message.get("headers", ()))
                if all(name != b"cache-control" for name, _ in headers):
                    headers.append(_CHECKED if _is_page(scope["path"]) else _UNSTORED)
                message["headers"] = [*headers, *_SAFE, policy]
            await send(message)

        await self._app(scope, receive, with_headers)


@lru_cache(maxsize=1024)
def _is_elsewhere(address: str) -> bool:
    """Return whether an address belongs to another machine; the path of a Unix socket does not."""
    try:
        # A link-local address may name its zone after a %.
        ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    return not is_loopback(address)


def _without_port(host: str) -> str:
    """Return the name in a Host header: `localhost:8080` and `[::1]:8080` without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _open(path: str) -> bool:
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIXES)


def _is_page(path: str) -> bool:
    return path in _PAGES or path.startswith(_OPEN_PREFIXES)


def _policy(inline: str = "") -> tuple[bytes, bytes]:
    words = (
        f"default-src 'none'; script-src 'self'{inline}; style-src 'self'{inline}; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return b"content-security-policy", words.encode()


_UNSTORED, _CHECKED = (b"cache-control", b"no-store"), (b"cache-control", b"private, no-cache")
_SAFE = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_POLICY, _INLINE_POLICY = _policy(), _policy(" 'unsafe-inline'")


class BodyLimit:
    """Reads a body of at most `limit_bytes` (declared or counted) and hands it on whole."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if declared_bytes(scope["headers"]) > self._limit_bytes:
            await self._refuse(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client disconnected before its request was complete
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit_bytes:
                await self._refuse(scope, receive, send)
                return
        await self._app(scope, _replay(bytes(body), receive), send)

    async def _refuse(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        response = problem_response(BodyTooLarge(self._limit_bytes), scope["path"])
        # The rest of this body must not be taken for the next request.
        response.headers["connection"] = "close"
        await response(dict(scope), receive, send)


def declared_bytes(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the length of a body as its head declares it; 0 where it does not."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            # Twenty digits exceed every limit, and Python refuses to convert more than 4300.
            return int(value[:20])
    return 0


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        # After the body come the server's own messages, by which the application learns of a disconnect.
        return pending.pop() if pending else await receive()

    return next_message
