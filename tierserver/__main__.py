"""`python -m tierserver --name edge --port 8000`: one tier in one uvicorn process; with `--serve`, a tier server.

There is no access log, httptools parses, uvloop runs the loop where it is installed, and signals are handled here.
"""

from __future__ import annotations

import gc
import sys
import types

# The process hides before the slow imports: its standard input will carry a token.
from tierserver.limits import MEMORY, hide_process

if __name__ == "__main__":
    hide_process()
    # Nothing that is imported is garbage, and looking for some takes a sixth of the time that imports take.
    gc.disable()
    # uvicorn imports its command line, and with it click and multiprocessing: a tenth of the time that imports take.
    sys.modules["uvicorn.main"] = types.ModuleType("uvicorn.main")
    vars(sys.modules["uvicorn.main"]).update(Server=None, main=None, run=None)

import argparse
import logging
import os
import platform
import socket
from pathlib import Path

from tierserver.asgi import HttpService, listen
from tierserver.control import Control
from tierserver.limits import Limits, body_limit, memory_limit_bytes
from tierserver.messages import Ready
from tierserver.pipeline import LaunchFiles, Tier
from tierserver.server import TierApp


def main() -> None:
    # Imported only there: a tier that a launcher starts pays for nothing of the server.
    if any(argument.startswith("--serve") for argument in sys.argv[1:]):
        from tierserver.serve import main as serve

        return serve()
    options = _parse()
    MEMORY.limit(options.memory_bytes)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # stdout belongs to the control channel: whatever else prints, prints to stderr.
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        sys.exit(f"tierserver: cannot listen on {options.host}:{options.port}: {error.strerror}; try another --port")
    # Imported before the tier is ready: what the first `load` imported would run under the tier's CPU quota.
    engine = None if options.no_engine else _engine()
    _collect_garbage()
    tier = Tier(options.name, None if options.files is None else LaunchFiles.read(options.files))
    limits = _limits(options)
    service = HttpService(TierApp(tier, limits), limits, on_ready=lambda: _ready(control, tier.name, listener, engine))
    control = Control(tier, sys.stdin, sink, guarded=options.token, on_end=service.stop)
    service.run(sockets=[listener])
    # A command may still compute in its thread; the interpreter's own way out would wait for it or crash in it.
    sys.stderr.flush()
    os._exit(0)


def _ready(control: Control, name: str, listener: socket.socket, engine: types.ModuleType | None) -> None:
    port = listener.getsockname()[1]
    version, providers = ("", ()) if engine is None else (engine.VERSION, engine.available_providers())
    ready = Ready(name, port, os.getpid(), platform.python_version(), version, providers)
    # The ready line comes before the reader starts: the runner takes the first line for it.
    control.tell(ready.to_json())
    control.start()


def _collect_garbage() -> None:
    """Collect garbage from here on, with the modules where they would be if it had been collected all the time."""
    gc.freeze()
    # Into the oldest generation, not apart for good: what collects while samples are taken stays as it was.
    gc.unfreeze()
    gc.enable()


def _engine() -> types.ModuleType:
    """Import what runs parts: the engine, and the reading of images."""
    from tierserver import engine, imaging  # noqa: F401

    return engine


def _limits(options: argparse.Namespace) -> Limits:
    body_bytes = options.max_body_bytes or body_limit(options.memory_bytes)
    return Limits(
        max_body_bytes=body_bytes,
        max_held_bytes=options.max_held_bytes or 2 * body_bytes,
        max_connections=options.max_connections,
        head_timeout_s=min(Limits.head_timeout_s, options.timeout_s),
        read_timeout_s=options.timeout_s,
        write_timeout_s=options.timeout_s,
    )


_EPILOG = "--serve HOST:PORT starts a tier server instead, which takes its commands over HTTP: see --serve --help"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "tierserver", description="Serve one tier; commands on stdin, answers on stdout.", epilog=_EPILOG
    )
    parser.add_argument("--name", required=True, help="the tier's name, such as edge")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (0.0.0.0 in a container)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free port, which the ready line names")
    parser.add_argument("--token", action="store_true", help="the first line on stdin is a token for every command")
    parser.add_argument("--files", type=Path, help="commands name only the files in this table (JSON: name to path)")
    parser.add_argument("--no-engine", action="store_true", help="a tier that runs no part starts sooner without it")
    memory_bytes = memory_limit_bytes()
    parser.add_argument("--memory-bytes", type=int, default=memory_bytes, help="of the tier; default %(default)s")
    parser.add_argument("--max-body-bytes", type=int, help="of one request; default an eighth of the memory")
    parser.add_argument("--max-held-bytes", type=int, help="of all requests under way; default two bodies")
    parser.add_argument("--max-connections", type=int, default=Limits.max_connections, help="default %(default)s")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=Limits.read_timeout_s,
        help="patience with a client that sends or reads nothing; default %(default)s",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
