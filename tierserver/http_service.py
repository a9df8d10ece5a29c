"""One uvicorn server under the limits of `tierserver.connection`, which signals or another thread can stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import Server

from tierserver.asgi import Receive, Scope, Send
from tierserver.connection import GuardedProtocol
from tierserver.limits import Limits

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
