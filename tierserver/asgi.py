"""The little of ASGI that the server needs, types, reading a bounded body, sending an answer, and the server under it.

`HttpService` is one uvicorn server under the limits of `tierserver.connection`, which signals or another thread stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from uvicorn.config import Config
from uvicorn.server import Server

from tierserver.connection import EXTENSION, GuardedProtocol, Intake
from tierserver.errors import TooBusy, TooLarge, TooSlow
from tierserver.limits import MIN_BODY_BYTES_PER_S, Limits

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_WRITE_BYTES = 2**20


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a body, and whether more follow."""

    data: bytes
    more: bool


@dataclass(frozen=True)
class Answer:
    """Status, headers and body pieces of one response."""

    status: int
    pieces: tuple[bytes | memoryview, ...]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.pieces))

    @staticmethod
    def of_json(value: Any, *, status: int = 200) -> Answer:
        return Answer(status, (json.dumps(value).encode(),))


async def send_answer(send: Send, answer: Answer, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send the pieces one after the other, without copying; wait for a slow reader between them."""
    length = str(answer.size_bytes).encode()
    common = [(b"content-type", answer.content_type), (b"content-length", length)]
    head = [*common, *answer.headers, *headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    for piece in answer.pieces:
        view = memoryview(piece)
        # uvicorn waits for a slow reader only between two sends: slices bound what its buffer takes of a large tensor.
        for start in range(0, len(view), _WRITE_BYTES):
            body = view[start : start + _WRITE_BYTES]
            await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class IncomingBody:
    """The body of one request as it arrives; only the time spent waiting for the client is limited."""

    def __init__(self, receive: Receive, *, timeout_s: float) -> None:
        self._receive = receive
        self._timeout_s = timeout_s
        self._waited_s = 0.0
        self.received_bytes = 0

    async def next(self) -> Chunk:
        """Return the next piece; raise TooSlow or ClientGone."""
        allowed_s = self._timeout_s + self.received_bytes / MIN_BODY_BYTES_PER_S
        started = time.monotonic()
        try:
            # Two limits at once: this silence alone, and all silences of the body so far.
            async with asyncio.timeout(min(self._timeout_s, allowed_s - self._waited_s)):
                message = await self._receive()
        except TimeoutError as error:
            waited_s = self._waited_s + time.monotonic() - started
            raise _too_slow(self.received_bytes, waited_s, self._timeout_s) from error
        self._waited_s += time.monotonic() - started
        if message["type"] == "http.disconnect":
            raise ClientGone
        data = message.get("body", b"")
        self.received_bytes += len(data)
        return Chunk(data, bool(message.get("more_body", False)))


def header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


class ByteBudget:
    """The bytes of all bodies and answers under way, within one limit."""

    def __init__(self, max_held_bytes: int) -> None:
        self._max_held_bytes = max_held_bytes
        # No lock: only the thread of the event loop counts.
        self._held_bytes = 0

    @contextmanager
    def holding(self, count: int) -> Iterator[Callable[[int], None]]:
        """Hold `count` bytes for the block; calling the yielded function holds more."""
        taken = 0

        def more(count: int) -> None:
            nonlocal taken
            if self._held_bytes + count > self._max_held_bytes:
                raise TooBusy("too many bytes of unfinished requests are held; try again later")
            self._held_bytes += count
            taken += count

        try:
            # Inside the `try` while `taken` is still 0: a refusal gives back only what was taken.
            more(count)
            yield more
        finally:
            self._held_bytes -= taken


class BodyReader:
    """A reader of bodies into one buffer each, within a limit per body and a limit for all of them."""

    def __init__(self, limits: Limits, budget: ByteBudget) -> None:
        self._max_body_bytes = limits.max_body_bytes
        self._timeout_s = limits.read_timeout_s
        self._budget = budget

    @asynccontextmanager
    async def reading(self, scope: Scope, receive: Receive) -> AsyncIterator[memoryview]:
        """Yield the whole body, whose bytes are counted as held for the block."""
        # The parser has refused a Content-Length that is not a number before the application runs.
        declared = int(header(scope, b"content-length") or 0)
        if declared > self._max_body_bytes:
            raise TooLarge(f"the body has {declared} bytes; allowed: {self._max_body_bytes}")
        incoming = IncomingBody(receive, timeout_s=self._timeout_s)
        first = await incoming.next()
        with self._budget.holding(len(first.data)) as hold:
            if not first.more:
                yield memoryview(first.data)
            elif declared:
                # numpy's memory is not touched before it is written, so a declared length alone takes none.
                buffer = np.empty(declared, np.uint8).data
                buffer[: len(first.data)] = first.data
                await self._fill(buffer[len(first.data) :], scope, hold)
                yield buffer
            else:
                yield await self._grow(first, incoming, hold)

    async def _fill(self, room: memoryview, scope: Scope, hold: Callable[[int], None]) -> None:
        """Receive the rest of a body of declared length straight into its buffer."""
        intake: Intake = scope["extensions"][EXTENSION]["take"](room, hold)
        try:
            await _complete(intake, len(room), self._timeout_s)
        finally:
            intake.discard()

    async def _grow(self, chunk: Chunk, incoming: IncomingBody, hold: Callable[[int], None]) -> memoryview:
        """Receive a chunked body, whose length is known only at its end."""
        buffer = bytearray(chunk.data)
        while chunk.more:
            chunk = await incoming.next()
            if incoming.received_bytes > self._max_body_bytes:
                raise TooLarge(f"the body has more than {self._max_body_bytes} bytes, the most allowed")
            hold(len(chunk.data))
            buffer += chunk.data
        return memoryview(buffer)


async def _complete(intake: Intake, expected: int, timeout_s: float) -> None:
    """Wait while bytes keep coming, fast enough on the whole."""
    started = time.monotonic()
    while not intake.ended.is_set():
        before = intake.left
        try:
            async with asyncio.timeout(timeout_s):
                await intake.ended.wait()
        except TimeoutError as error:
            received, waited_s = expected - intake.left, time.monotonic() - started
            if intake.left == before or waited_s > timeout_s + received / MIN_BODY_BYTES_PER_S:
                raise _too_slow(received, waited_s, timeout_s) from error
    if intake.refusal is not None:
        raise intake.refusal
    # The event is also set when the connection is lost, and only then are bytes missing.
    if intake.left:
        raise ClientGone


def _too_slow(received_bytes: int, waited_s: float, timeout_s: float) -> TooSlow:
    return TooSlow(
        f"{received_bytes} bytes of the body came in {waited_s:.0f} s; expected: never nothing for {timeout_s:g} s, "
        f"and {MIN_BODY_BYTES_PER_S} bytes per second after that"
    )


Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class HttpService(Server):
    """Serves until SIGTERM, SIGINT or `stop`, which may be called from another thread."""

    def __init__(self, app: Application, limits: Limits, *, on_ready: Callable[[], None]) -> None:
        super().__init__(_config(app, limits))
        # uvicorn warns of every malformed request: the mistakes of strange clients must not fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on signals: process 1 of a container would ignore them, and elsewhere the exit status would not be 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()

    def stop(self) -> None:
        # uvicorn polls this flag ten times a second, so another thread may set it without waking the loop.
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def _config(app: Application, limits: Limits) -> Config:
    protocol = functools.partial(GuardedProtocol, limits=limits)
    return Config(
        cast(Any, app),
        http=cast(Any, protocol),
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        # uvicorn's default of 5 s would close a warm connection in a pause between two commands.
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
