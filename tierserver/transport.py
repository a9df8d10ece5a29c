"""A synchronous keep-alive HTTP/1.1 client that counts its bytes: how one tier calls another.

It speaks to tier servers only (every answer has a Content-Length) and does little else: a body goes out in the pieces
it is in, an answer comes into one preallocated buffer, and the counts are those of the socket.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tierserver import protocol
from tierserver.errors import PeerError, RequestError, TierError
from tierserver.messages import MessageError, ProbeDirection, SampleLink, SamplePart

TIER_HEADER = "tierwise-tier"
LINK_HEADER = "tierwise-link"
_CONNECT_TIMEOUT_S = 10.0
_HEAD_BYTES = 65536
# The largest probe that a tier answers (`tierserver.server`).
_MAX_BODY_BYTES = 2**31
# 8 Tbit/s, which no link carries: a finite figure where the clock stood still.
_SHORTEST_S_PER_BYTE = 1e-12


@dataclass(frozen=True)
class Response:
    """An answer, and what it and its request took on the wire (heads and bodies)."""

    status: int
    headers: Mapping[str, str]
    body: memoryview
    sent_bytes: int
    received_bytes: int


class Arrivals:
    """How many bytes of a body had arrived, and when.

    The receiver times a transfer: whatever delays its sender's first byte, its own answer or a single wake-up does not
    look like a slow link then.
    """

    # Enough for the median of slopes, whose pairs grow with the square.
    _MOST_POINTS = 32

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._points: list[tuple[int, float]] = [(0, clock())]

    def add(self, received_bytes: int) -> None:
        """Note that so many bytes have arrived by now, in all."""
        if received_bytes > self._points[-1][0]:
            self._points.append((received_bytes, self._clock()))

    def after(self, small_bytes: int) -> ProbeDirection:
        """Return the rate after the first `small_bytes`, or that of the whole body where hardly anything followed them.

        The rate is that of the median slope between any two arrivals (Theil and Sen): a few late wake-ups do not move
        it. P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, Journal of the American
        Statistical Association 63 (1968).
        """
        timed = [point for point in self._points if point[0] >= small_bytes]
        # A link without shaping hands over everything in one or two reads.
        timed = timed if len(timed) > 2 else self._points
        steps = min(len(timed), self._MOST_POINTS)
        chosen = [timed[index * (len(timed) - 1) // max(steps - 1, 1)] for index in range(steps)]
        slopes = [(t - s) / (y - x) for (x, s), (y, t) in itertools.combinations(chosen, 2)]
        # Two arrivals may be read at one reading of the clock.
        seconds_per_byte = max(median(slopes or [0.0]), _SHORTEST_S_PER_BYTE)
        (small, small_at), (large, large_at) = timed[0], timed[-1]
        started = self._points[0][1]
        return ProbeDirection(small_at - started, large_at - started, 8 / seconds_per_byte, small, large)


class Connection:
    """One connection to one base URL (which may hold a path prefix), opened when first used; thread-safe."""

    def __init__(self, base_url: str, *, timeout_s: float = 300.0) -> None:
        address = urlsplit(base_url)
        if address.scheme != "http" or not address.hostname:
            raise TierError(f"base URL {base_url!r}: expected http://HOST:PORT with an optional path")
        self.base_url = base_url
        self._address = (address.hostname, address.port or 80)
        self._host = address.netloc
        self._prefix = address.path.rstrip("/")
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        # The server's worker and the control thread may run the same part, which has one connection to its next tier.
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        *,
        pieces: Sequence[bytes | memoryview] = (),
        headers: Mapping[str, str] | None = None,
        arrivals: Arrivals | None = None,
    ) -> Response:
        """Send one request and read its whole answer, whose `arrivals` are noted; raise PeerError if there is none."""
        head = self._head(method, path, sum(map(len, pieces)), headers or {})
        with self._lock:
            try:
                return self._exchange([head, *pieces], arrivals)
            except (OSError, PeerError) as error:
                self.close()
                if isinstance(error, PeerError):
                    raise
                raise PeerError(f"no answer from {self.base_url}: {error}", peer=self.base_url) from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _head(self, method: str, path: str, length: int, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", f"host: {self._host}"]
        if method == "POST":
            lines.append(f"content-length: {length}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _exchange(self, pieces: list[bytes | memoryview], arrivals: Arrivals | None) -> Response:
        reused = self._socket is not None
        try:
            return self._attempt(pieces, arrivals)
        except ConnectionError:
            if not reused:
                raise
            self.close()  # the peer had closed an idle connection: once more, on a new one
            return self._attempt(pieces, arrivals)

    def _attempt(self, pieces: list[bytes | memoryview], arrivals: Arrivals | None) -> Response:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=_CONNECT_TIMEOUT_S)
            # Longer than the connection may take: a small tier may compute for minutes before it answers.
            self._socket.settimeout(self._timeout_s)
            # Nagle's algorithm (RFC 896) would hold the end of a body back until an acknowledgement, in every latency.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sent = _send(self._socket, pieces)
        except (BrokenPipeError, ConnectionResetError):
            sent = 0  # a refusal may have come before the body was through: read it
        return self._read(self._socket, sent, arrivals)

    def _read(self, source: socket.socket, sent: int, arrivals: Arrivals | None) -> Response:
        head = bytearray()
        while (end := head.find(b"\r\n\r\n")) < 0:
            if len(head) > _HEAD_BYTES:
                raise PeerError(f"{self.base_url} answers with an endless head", peer=self.base_url)
            chunk = source.recv(_HEAD_BYTES)
            if not chunk:
                raise ConnectionResetError("connection closed before an answer")
            head += chunk
        status, headers = self._parse(bytes(head[:end]))
        length = int(headers.get("content-length", "0"))
        if length > _MAX_BODY_BYTES:
            raise PeerError(f"{self.base_url} answers with {length} bytes", peer=self.base_url)
        body = np.empty(length, np.uint8).data  # not zeroed first: that takes time in which nothing is received
        filled = len(head) - end - 4
        if filled > length:
            raise PeerError(f"{self.base_url} answers with more than its Content-Length", peer=self.base_url)
        body[:filled] = head[end + 4 :]
        while filled < length:
            count = source.recv_into(body[filled:])
            if not count:
                raise PeerError(f"{self.base_url} broke off after {filled} of {length} bytes", peer=self.base_url)
            filled += count
            if arrivals is not None:
                arrivals.add(filled)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Response(status, headers, body, sent, end + 4 + length)

    def _parse(self, head: bytes) -> tuple[int, dict[str, str]]:
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = first.split(" ", 2)
        # Names of fields are case-insensitive (RFC 9110, section 5.1).
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        plain = _is_whole(headers.get("content-length", "0")) and "transfer-encoding" not in headers
        if len(fields) < 2 or not fields[0].startswith("HTTP/1.") or not _is_whole(fields[1]) or not plain:
            raise PeerError(f"{self.base_url} does not answer as a tier does: {first[:80]!r}", peer=self.base_url)
        return int(fields[1]), headers


def _is_whole(text: str) -> bool:
    # `isdigit` alone takes digits that `int` does not, such as ², and `int` takes no more than 4 300.
    return text.isascii() and text.isdigit() and len(text) <= 18


# Linux refuses more in one call (UIO_MAXIOV, sendmsg(2)): a request of 1 024 tensors has more pieces.
_MOST_BUFFERS = 1024


def _send(target: socket.socket, pieces: Sequence[bytes | memoryview]) -> int:
    """Send all pieces, gathered, without joining them."""
    total = sum(map(len, pieces))
    left = [memoryview(piece) for piece in pieces if len(piece)]
    while left:
        # The kernel may take less than all, and may end inside any piece.
        count = target.sendmsg(left[:_MOST_BUFFERS])
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if left and count:
            left[0] = left[0][count:]
    return total


@dataclass(frozen=True)
class PeerAnswer:
    """What the tiers behind the link gave, and how long reading it took here."""

    outputs: Mapping[str, NDArray[Any]]
    parts: tuple[SamplePart, ...]
    links: tuple[SampleLink, ...]
    decode_s: float


class Peer:
    """The tier at `base_url`, seen from tier `own`."""

    def __init__(self, own: str, base_url: str) -> None:
        self._own = own
        self._connection = Connection(base_url)
        self.base_url = base_url

    def infer(self, model: str, body: protocol.Body) -> PeerAnswer:
        headers = {"content-type": "application/json"}
        if body.header_length is not None:
            headers = {"content-type": "application/octet-stream", protocol.HEADER_LENGTH: str(body.header_length)}
        response = self._connection.request(
            "POST", f"/v2/models/{quote(model)}/infer", pieces=body.pieces, headers=headers
        )
        started = time.perf_counter()
        self._check(response)
        try:
            answer = protocol.decode_response(response.body, response.headers.get(protocol.HEADER_LENGTH))
            parts = tuple(map(SamplePart.from_json, json.loads(answer.parameters["tierwise_parts"])))
            further = tuple(map(SampleLink.from_json, json.loads(answer.parameters["tierwise_links"])))
            links = (*self._links(response), *further)
        except (KeyError, ValueError, TypeError, MessageError, RequestError) as error:
            raise PeerError(f"{self.base_url} does not report as a tier does: {error}", peer=self.base_url) from error
        return PeerAnswer(answer.outputs, parts, links, time.perf_counter() - started)

    def metadata(self, model: str) -> dict[str, Any]:
        response = self._connection.request("GET", f"/v2/models/{quote(model)}")
        self._check(response)
        try:
            description = json.loads(bytes(response.body))
        except ValueError as error:
            raise PeerError(f"{self.base_url} gives no metadata of {model}", peer=self.base_url) from error
        return dict(description)

    def close(self) -> None:
        self._connection.close()

    def _check(self, response: Response) -> None:
        if response.status != 200:
            reason = bytes(response.body[:500]).decode("utf-8", "replace")
            message = f"{self.base_url} answered {response.status}: {reason}"
            raise PeerError(message, peer=self.base_url, peer_status=response.status)

    def _links(self, response: Response) -> tuple[SampleLink, ...]:
        # A relay overwrites this header with its own name, so it names the near end of the first link.
        first = response.headers.get(TIER_HEADER, "?")
        own = SampleLink(f"{self._own}-{first}", response.sent_bytes, response.received_bytes)
        relayed = response.headers.get(LINK_HEADER, "")
        return (own, *(parse_link(hop) for hop in relayed.split(",") if hop.strip()))


def parse_link(value: str) -> SampleLink:
    """Parse one hop of the `tierwise-link` header: `edge-cloud;sent=10;received=20`."""
    name, sent, received = value.strip().split(";")
    return SampleLink(name, int(sent.removeprefix("sent=")), int(received.removeprefix("received=")))


def format_link(link: SampleLink) -> str:
    return f"{link.link};sent={link.sent_bytes};received={link.received_bytes}"
