"""ASGI middleware around every resource: access, the time limit, the body limit, security headers, and the log.

The access log has a line for each request, in the Common Log Format with the seconds that the answer took. Lines are
written by a thread of their own, many at once: a reader of the log that stops reading must not stop the service, whose
event loop would wait for it.
"""

import asyncio
import hmac
import ipaddress
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol, TextIO
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalog.units import counted
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
        await self._app(scope, replay(bytes(body), receive), send)

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


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with a whole body."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        # After the body come the server's own messages, by which the application learns of a disconnect.
        return pending.pop() if pending else await receive()

    return next_message


# Lines that wait while the log is not read; later ones are counted and dropped.
_WAITING = 10_000
# Long enough to write what comes together at once, and short enough for a person who watches.
_EVERY_S = 0.1
_CLOSING_S = 1.0
_PATH_CHARACTERS = 300
# What a URL may hold as it is. Everything else is percent-encoded: quotes, blanks and control characters.
_UNQUOTED = "/:@!$&'()*+,;=~[]"


class RequestLog(Protocol):
    """Takes note of answered and refused requests."""

    def write(self, *, client: str, request: str, status: int, sent_bytes: int, duration_s: float) -> None:
        """Note one request."""


class AccessLog:
    """Writes to a stream, by default that of errors; `close` writes what still waits."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # The stream is looked up now: tests replace that of errors.
        self._stream = stream or sys.stderr
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._some = threading.Event()
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._writer.start()

    def write(self, *, client: str, request: str, status: int, sent_bytes: int, duration_s: float) -> None:
        """Note one request; `request` comes from `request_line`."""
        if len(self._lines) >= _WAITING:
            self._dropped += 1
            return
        moment = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        line = f'{quote(client, _UNQUOTED) or "-"} - - [{moment}] "{request}" {status} {sent_bytes} {duration_s:.6f}\n'
        self._lines.append(line)
        self._some.set()

    def close(self) -> None:
        """Write what still waits; give up on a stream that takes nothing."""
        self._closed.set()
        self._some.set()
        self._writer.join(_CLOSING_S)

    def _run(self) -> None:
        while self._lines or not self._closed.is_set():
            self._some.wait()
            # Others may follow at once; together they are one write.
            self._closed.wait(_EVERY_S)
            self._some.clear()
            self._flush()
            if self._closed.is_set():
                self._some.set()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if self._dropped:
            lines.append(f"access log: {counted(self._dropped, 'line')} dropped, because the log was not read\n")
            self._dropped = 0
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):
            # A closed stream or a full disk must not end the service; there is nowhere to say so.
            return


def request_line(method: str, path: str, version: str, *, secret: str | None = None) -> str:
    """Return a request as its log line shows it: printable, without its query and without the service's key.

    Examples
    --------
    >>> request_line("GET", "/strategies/a b\\n", "1.1")
    'GET /strategies/a%20b%0A HTTP/1.1'
    """
    if secret:
        path = path.replace(secret, "***")
    # By characters and not by bytes of the encoded path, which could end in the middle of one.
    shown = path if len(path) <= _PATH_CHARACTERS else f"{path[:_PATH_CHARACTERS]}..."
    return f"{quote(method, '')} {quote(shown, _UNQUOTED, errors='replace')} HTTP/{quote(version, '.')}"
