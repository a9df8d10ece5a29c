"""A stop that loses no request: the service says that it goes, goes on answering for a while, and ends its connections.

While it drains, `GET /readyz` answers 503, so that a proxy sends its clients elsewhere, and every answer closes its
connection. A connection that is closed while its client begins another request would lose that one.
"""

import asyncio
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Longer than a request that was sent before its client could see the close takes to arrive; so long new ones are read.
_SETTLE_S = 1.0
_LOOK_EVERY_S = 0.02


@dataclass
class Drain:
    """Whether the service has begun to stop; one for each application."""

    begun: bool = False


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which on SIGTERM drains first; on a second signal, or Ctrl-C, it stops at once."""

    def __init__(self, config: uvicorn.Config, drain: Drain, *, drain_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_s = drain_s
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or to stop."""
        first = not self._drain.begun
        self._drain.begun = True
        if first and sig == signal.SIGTERM:
            # uvicorn would end the process by the same signal, before the access log is written.
            self._stop_at = time.monotonic() + self._drain_s
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to stop now."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and wait a moment for the first request of those that were taken."""
        # Copies keep the sockets open while the event loop closes its own, which uvloop does in its next turns.
        listeners = [listener.dup() for listener in sockets or ()]
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await asyncio.sleep(_LOOK_EVERY_S)
        for listener in listeners:
            await self._close(listener)
        deadline = time.monotonic() + _SETTLE_S
        while time.monotonic() < deadline and any(map(_awaits_first_request, self.server_state.connections)):
            await asyncio.sleep(_LOOK_EVERY_S)
        await super().shutdown(sockets)

    async def _close(self, listener: socket.socket) -> None:
        """Close a socket after accepting all that wait at it, whose requests the close would reset."""
        listener.setblocking(False)
        accepted = []
        with suppress(BlockingIOError):
            while True:
                accepted.append(listener.accept()[0])
        # Before anything else runs: what connects later is refused, and nothing of it is lost.
        listener.close()
        for connection in accepted:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        """Return the protocol of a connection, as uvicorn makes it."""
        kind = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]


def _awaits_first_request(connection: object) -> bool:
    return isinstance(connection, HttpToolsProtocol) and connection.cycle is None
