"""One uvicorn process per tier: no access log, httptools, uvloop where there is one, signals handled here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
import signal
import socket
from collections.abc import Callable, Generator
from typing import Any, cast

import uvicorn

from tierserver.connection import GuardedProtocol
from tierserver.limits import Limits
from tierserver.server import TierApp

logger = logging.getLogger(__name__)


class TierService(uvicorn.Server):
    """Serves until SIGTERM, SIGINT or `stop`, which may be called from another thread."""

    def __init__(self, app: TierApp, limits: Limits, *, on_ready: Callable[[], None]) -> None:
        super().__init__(_config(app, limits))
        # It warns of each request that is none: a stranger's mistakes are not to fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As process 1 of a container nothing would happen by default; elsewhere an orderly end is exit 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()

    def stop(self) -> None:
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def _config(app: TierApp, limits: Limits) -> uvicorn.Config:
    protocol = functools.partial(GuardedProtocol, limits=limits)
    return uvicorn.Config(
        app,
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
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
