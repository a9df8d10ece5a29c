"""`python -m tierserver --name edge --port 8000`: one tier."""

from __future__ import annotations

# The process hides before it imports what takes long: its standard input is to carry a token.
from tierserver.limits import MEMORY, hide_process

if __name__ == "__main__":
    hide_process()

import argparse
import logging
import os
import platform
import socket
import sys

from tierserver.control import Control
from tierserver.engine import VERSION, available_providers
from tierserver.limits import Limits, body_limit, memory_limit_bytes
from tierserver.messages import Ready
from tierserver.pipeline import Tier
from tierserver.server import TierApp
from tierserver.service import TierService, listen


def main() -> None:
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
    tier = Tier(options.name)
    limits = _limits(options)
    service = TierService(TierApp(tier, limits), limits, on_ready=lambda: _ready(control, tier.name, listener))
    control = Control(tier, sys.stdin, sink, guarded=options.token, on_end=service.stop)
    service.run(sockets=[listener])
    # A command may still compute in its thread; the interpreter's own way out would wait for it or crash in it.
    sys.stderr.flush()
    os._exit(0)


def _ready(control: Control, name: str, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    ready = Ready(name, port, os.getpid(), platform.python_version(), VERSION, available_providers())
    control.tell(ready.to_json())
    control.start()


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


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tierserver", description="Serve one tier; commands on stdin, answers on stdout.")
    parser.add_argument("--name", required=True, help="the tier's name, such as edge")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (a container wants 0.0.0.0)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free port, told in the ready line")
    parser.add_argument("--token", action="store_true", help="the first line on stdin is a token for every command")
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
