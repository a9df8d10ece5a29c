"""What `transport.py` runs inside the containers: servers to compare with, and the client that times them all.

`python transport_inside.py serve KIND PORT` or `python transport_inside.py time '{"...": ...}'` (see `Job`).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_CHUNK_BYTES = 2**20


# -- servers ----------------------------------------------------------------------------------------------------


def serve_socket(port: int) -> None:
    """The floor: a length, the bytes into one buffer that no zeros were written to before, one byte back."""
    import numpy as np

    with socket.create_server(("0.0.0.0", port)) as listening:
        while True:
            connection, _ = listening.accept()
            with connection:
                while head := connection.recv(8, socket.MSG_WAITALL):
                    view = memoryview(np.empty(struct.unpack("<Q", head)[0], np.uint8))
                    while view:
                        view = view[connection.recv_into(view, min(len(view), _CHUNK_BYTES)) :]
                    connection.sendall(b"\1")


def serve_starlette(port: int) -> None:
    """uvicorn, httptools, uvloop as in a tier, with Starlette's way to take a body."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def take(request: Request) -> JSONResponse:
        return JSONResponse({"received": len(await request.body())})

    app = Starlette(routes=[Route("/take", take, methods=["POST"])])
    uvicorn.run(app, host="0.0.0.0", port=port, http="httptools", loop="uvloop", log_level="error", access_log=False)


def serve_flask(port: int) -> None:
    """As the study did it: Flask, Base64 in JSON, both ways."""
    import logging

    from flask import Flask, jsonify, request

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = Flask("study")

    @app.post("/take")
    def take() -> Any:
        data = base64.b64decode(request.get_json()["data"])
        return jsonify({"received": len(data), "data": base64.b64encode(data[:64]).decode()})

    app.run(host="0.0.0.0", port=port, threaded=True)


# -- the client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """Transfers of `sizes` bytes, each `repetitions` times and in turn, of one `kind` to `url`."""

    kind: str
    url: str
    sizes: list[int]
    repetitions: int
    pid: str | None = None


def tier_upload(url: str, codec: str) -> Callable[[int], None]:
    """A tensor to a tier's graph as a head's tier sends it: encoding, both ways and decoding are in the time."""
    import numpy as np

    from tierserver import protocol
    from tierserver.transport import Peer

    peer = Peer("mobile", url)
    activations = np.maximum(np.random.default_rng(1).normal(size=2**18), 0).astype(np.float32)

    def transfer(count: int) -> None:
        array = np.resize(activations, max(1, count // 4)).reshape(1, -1)
        clock.restart()
        peer.infer("net.graph", protocol.encode_tensor_request({"x": array}, codec))  # type: ignore[arg-type]

    return transfer


def tier_download(url: str) -> Callable[[int], None]:
    from tierserver.transport import Connection

    connection = Connection(url)

    def transfer(count: int) -> None:
        assert len(connection.request("GET", f"/probe?bytes={count}").body) == count

    return transfer


def http_upload(url: str) -> Callable[[int], None]:
    """Raw bytes with the tiers' own client, so that only the server differs."""
    from tierserver.transport import Connection

    connection = Connection(url)

    def transfer(count: int) -> None:
        body = bytes(count)
        clock.restart()
        response = connection.request("POST", "/take", pieces=(body,))
        assert json.loads(bytes(response.body))["received"] == count

    return transfer


def socket_upload(url: str) -> Callable[[int], None]:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port))

    def transfer(count: int) -> None:
        body = bytes(count)
        clock.restart()
        connection.sendall(struct.pack("<Q", count))
        connection.sendall(body)
        assert connection.recv(1) == b"\1"

    return transfer


def flask_upload(url: str) -> Callable[[int], None]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)

    def transfer(count: int) -> None:
        data = os.urandom(count)
        clock.restart()
        body = json.dumps({"data": base64.b64encode(data).decode()})
        connection.request("POST", "/take", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        assert answer["received"] == count and base64.b64decode(answer["data"]) == data[:64]

    return transfer


class Clock:
    """Started before a transfer, and again by one that first makes its payload."""

    def __init__(self) -> None:
        self._started = 0.0

    def restart(self) -> None:
        self._started = time.perf_counter()

    def elapsed_s(self) -> float:
        return time.perf_counter() - self._started


clock = Clock()
KINDS: dict[str, Callable[[str], Callable[[int], None]]] = {
    "raw": lambda url: tier_upload(url, "raw"),
    "base64-json": lambda url: tier_upload(url, "base64-json"),
    "shuffle-zlib": lambda url: tier_upload(url, "shuffle-zlib"),
    "down": tier_download,
    "starlette": http_upload,
    "socket": socket_upload,
    "flask": flask_upload,
}


def run(job: Job) -> dict[str, list[float]]:
    """Seconds by size."""
    transfer = KINDS[job.kind](job.url)
    transfer(max(job.sizes))  # opens the connection, and its windows as a measurement's warm-up does
    durations: dict[str, list[float]] = {str(size): [] for size in job.sizes}
    for _ in range(job.repetitions):
        for size in job.sizes:
            clock.restart()
            transfer(size)
            durations[str(size)].append(clock.elapsed_s())
    return durations


def main() -> None:
    sys.path.append(str(Path(__file__).parent.parent / "packages"))
    if sys.argv[1] == "serve":
        serve = {"socket": serve_socket, "starlette": serve_starlette, "flask": serve_flask}
        serve[sys.argv[2]](int(sys.argv[3]))
    else:
        print(json.dumps(run(Job(**json.loads(sys.argv[2])))))


if __name__ == "__main__":
    main()
