"""ASGI middleware around every resource: access, the time limit, the body limit, security headers, and the log.

The access log has a line for each request, in the Common Log Format with the seconds that the answer took. Lines are
written by a thread of their own, many at once: a reader of the log that stops reading must not stop the service, whose
event loop would wait for it.

Requests are counted and timed for `/metrics` (`ServiceMetrics`), with all that other layers do about them.
"""

import asyncio
import hmac
import ipaddress
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol, TextIO
from urllib.parse import quote

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalog.units import counted
from recommender.errors import (
    BodyTooLarge,
    Exposed,
    NotAuthorized,
    RecommenderError,
    RequestTooSlow,
    WrongHost,
)
from recommender.evidence.snapshots import Snapshots
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


# A kept answer takes less than a millisecond, a new one about two, the first one seconds (docs/recommend.md).
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ServiceMetrics:
    """One registry per application, so that two in one process never share a count."""

    def __init__(self, snapshots: Snapshots) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tierwise_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self._duration = Histogram(
            "tierwise_request_duration_seconds",
            "From the first byte of a request to the last of its response",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_EvidenceCollector(snapshots))
        self._labelled: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def record(self, *, route: str, method: str, status: int, duration_s: float | None) -> None:
        """Count one request; without a duration, one that never reached the application."""
        count, durations = self._children(route, method, status)
        count.inc()
        if duration_s is not None:
            durations.observe(duration_s)

    def _children(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        """Return the metrics of these labels, looked up once; routes, methods and statuses are few."""
        key = route, method, status
        if key not in self._labelled:
            self._labelled[key] = self._requests.labels(route, method, str(status)), self._duration.labels(route)
        return self._labelled[key]

    def text(self) -> bytes:
        """Return the metrics in Prometheus' exposition format."""
        return generate_latest(self.registry)


# Where a request's scope has the status of the answer that its connection sent instead of the application's.
REFUSED = "tierwise.refused"


class RequestRecorder:
    """Takes note of every answer in the metrics and, where there is one, in a log; it holds no key and no query."""

    def __init__(self, metrics: ServiceMetrics, log: RequestLog | None = None, *, secret: str | None = None) -> None:
        self._metrics = metrics
        self._log = log
        self._secret = secret

    def answered(self, scope: Scope, *, status: int, sent_bytes: int, duration_s: float) -> None:
        """Note an answer of the application.

        Routes are labelled by their template, unknown ones together, so that labels stay few.
        """
        route = getattr(scope.get("route"), "path", None) or "(other)"
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        self._metrics.record(route=route, method=method, status=status, duration_s=duration_s)
        if self._log is not None:
            client = str(scope["client"][0]) if scope.get("client") else ""
            line = self._line(scope)
            self._log.write(client=client, request=line, status=status, sent_bytes=sent_bytes, duration_s=duration_s)

    def refused(self, *, client: str, status: int, sent_bytes: int, scope: Scope | None = None) -> None:
        """Note a refusal before the application; without a scope, of what never became a request."""
        self._metrics.record(route="(refused)", method="(other)", status=status, duration_s=None)
        if self._log is not None:
            line = "-" if scope is None else self._line(scope)
            self._log.write(client=client, request=line, status=status, sent_bytes=sent_bytes, duration_s=0.0)

    def _line(self, scope: Scope) -> str:
        return request_line(scope["method"], scope["path"], scope.get("http_version", "1.1"), secret=self._secret)


class RequestObserver:
    """Times every request, with all that other layers do about it."""

    def __init__(self, app: ASGIApp, recorder: RequestRecorder) -> None:
        self._app = app
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None
        sent_bytes = 0
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, observed)
            if status is None:
                status = scope.get(REFUSED, _GONE)
        finally:
            duration_s = time.perf_counter() - started
            self._recorder.answered(scope, status=status or _FAILED, sent_bytes=sent_bytes, duration_s=duration_s)


# The status of a request whose application fails before it answers; the response is made further out.
_FAILED = 500
# Of a client that left before its request was complete, as nginx logs it.
_GONE = 499
# HTTP lets a client make up methods, and each would be a label that stays.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _EvidenceCollector(Collector):
    """Reads the state of the evidence at each scrape."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not open the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield how much evidence there is, or that it cannot be read."""
        ready = GaugeMetricFamily("tierwise_ready", "1 when a question can be answered now")
        try:
            evidence = self._snapshots.current()
        except RecommenderError:
            ready.add_metric([], 0)
            yield ready
            return
        ready.add_metric([], 1)
        yield ready
        polled = "1 where changes of the evidence are looked for, 0 where they are announced or seen in the file"
        yield GaugeMetricFamily("tierwise_polling", polled, value=self._snapshots.refresh().startswith("polling"))
        yield GaugeMetricFamily(
            "tierwise_evidence_loaded_timestamp_seconds",
            "When the evidence in memory was read",
            value=evidence.loaded_at.timestamp(),
        )
        strategies = GaugeMetricFamily(
            "tierwise_strategies", "Strategies of the default environment", labels=["subject", "state"]
        )
        for subject in evidence.subjects:
            subject_evidence = evidence.select(subject)
            strategies.add_metric([subject, "declared"], len(subject_evidence.strategies))
            strategies.add_metric([subject, "measured"], len(subject_evidence.candidates))
        yield strategies
