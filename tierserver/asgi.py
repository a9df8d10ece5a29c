"""The little of ASGI that the server needs: types, reading a bounded body, sending an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from tierserver.errors import TooBusy, TooLarge, TooSlow

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

IDLE_TIMEOUT_S = 60.0


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


@dataclass(frozen=True)
class Answer:
    """Status, headers and body pieces of one response."""

    status: int
    pieces: tuple[bytes | memoryview, ...]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"

    @staticmethod
    def of_json(value: Any, *, status: int = 200) -> Answer:
        return Answer(status, (json.dumps(value).encode(),))


async def send_answer(send: Send, answer: Answer, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send the pieces one after the other: none is copied into another."""
    length = str(sum(map(len, answer.pieces))).encode()
    common = [(b"content-type", answer.content_type), (b"content-length", length)]
    head = [*common, *answer.headers, *headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    last = len(answer.pieces) - 1
    for index, piece in enumerate(answer.pieces):
        await send({"type": "http.response.body", "body": piece, "more_body": index < last})
    if last < 0:
        await send({"type": "http.response.body", "body": b""})


async def next_chunk(receive: Receive) -> tuple[bytes, bool]:
    """The next piece of the body, and whether more follow."""
    try:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            message = await receive()
    except TimeoutError as error:
        raise TooSlow(f"no further byte of the body for {IDLE_TIMEOUT_S:.0f} s") from error
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), bool(message.get("more_body", False))


def header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


class BodyReader:
    """Reads bodies into one buffer each, within a limit for one and a limit for all of them together."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._held_bytes = 0

    async def read(self, scope: Scope, receive: Receive) -> memoryview:
        declared = int(header(scope, b"content-length") or 0)
        if declared > self._max_body_bytes:
            raise TooLarge(f"the body has {declared} bytes; allowed: {self._max_body_bytes}")
        first, more = await next_chunk(receive)
        if not more:
            return memoryview(first)
        return await self._collect(first, declared, receive)

    async def _collect(self, chunk: bytes, declared: int, receive: Receive) -> memoryview:
        buffer, filled, more = bytearray(declared), 0, True
        try:
            while True:
                self._hold(len(chunk))
                end = filled + len(chunk)
                buffer[filled:end] = chunk  # in place where the length was declared, growing where it was not
                filled = end
                if filled > self._max_body_bytes:
                    raise TooLarge(f"the body has more than {self._max_body_bytes} bytes, the most allowed")
                if not more:
                    return memoryview(buffer)
                chunk, more = await next_chunk(receive)
        finally:
            self._held_bytes -= filled

    def _hold(self, count: int) -> None:
        if self._held_bytes + count > 2 * self._max_body_bytes:
            raise TooBusy("too many bytes of unfinished requests are held; try again later")
        self._held_bytes += count
