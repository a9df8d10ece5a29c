"""Throw hostile requests at a tier and, through it, at the tier behind it: `python -m benchmarks.fuzz_tier`

Two real tiers run as processes with small limits. Each request is made by one of the families below from a seed and
sent on a connection of its own, and whatever comes back is judged. A status of 500 or more, a trace in an answer or
in a log, a tier that ended, a healthy request that fails, or more memory than the declared limits allow makes the run
fail (exit code 1). Prints JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from PIL import Image

from tierserver.messages import Load, PartSpec, Postprocess, Preprocess

BODY_BYTES = 4 * 2**20
HELD_BYTES = 16 * 2**20
# One JSON value takes up to a hundred bytes and there are at most 2**20; one body is decoded at a time.
ALLOWED_GROWTH_BYTES = HELD_BYTES + 3 * BODY_BYTES + 100 * 2**20
WORKERS = 16
PATIENCE_S = 1.0
IMAGE, GRAPH = "/v2/models/net/infer", "/v2/models/net.graph/infer"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


# -- healthy requests, which the families spoil -----------------------------------------------------------------


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (12, 9), 77).save(stream, "PNG")
    return stream.getvalue()


PNG = png()
FLOATS = struct.pack("<64f", *range(64))
PACKED = zlib.compress(b"".join(FLOATS[first::4] for first in range(4)))


def post(path: str, body: bytes, *lines: str, length: object = None) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: tier", f"Content-Length: {len(body) if length is None else length}", *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def infer(path: str, entry: dict[str, Any], data: bytes, *, size: object = None, header: object = None) -> bytes:
    parameters = {"binary_data_size": len(data) if size is None else size, **entry.pop("parameters", {})}
    described = {"inputs": [{**entry, "parameters": parameters}]}
    head = json.dumps(described).encode()
    return post(path, head + data, f"Inference-Header-Content-Length: {len(head) if header is None else header}")


def image_entry(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "shape": [1], "datatype": "BYTES", **changes}


def tensor_entry(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 1, 8, 8], "datatype": "FP32", **changes}


def anywhere(rng: random.Random, path: str) -> str:
    """To the first tier or, relayed, to the one behind."""
    return rng.choice(("", "/tiers/cloud")) + path


def healthy(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return infer(anywhere(rng, IMAGE), image_entry(), struct.pack("<I", len(PNG)) + PNG)
    if kind == 1:
        return infer(anywhere(rng, GRAPH), tensor_entry(), FLOATS)
    if kind == 2:
        entry = tensor_entry(parameters={"tierwise_codec": "shuffle-zlib"})
        return infer(anywhere(rng, GRAPH), entry, PACKED)
    body = json.dumps({"inputs": [tensor_entry(data=[0.5] * 64)]}).encode()
    return post(anywhere(rng, GRAPH), body)


# -- the families -----------------------------------------------------------------------------------------------


def flipped(rng: random.Random) -> bytes:
    raw = bytearray(healthy(rng))
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(raw))
        match rng.randrange(3):
            case 0:
                raw[place] = rng.randrange(256)
            case 1:
                del raw[place : place + rng.randint(1, 9)]
            case _:
                raw[place:place] = rng.randbytes(rng.randint(1, 9))
        if not raw:
            break
    return bytes(raw)


def cut_off(rng: random.Random) -> bytes:
    raw = healthy(rng)
    return raw[: rng.randrange(len(raw))]


def odd_number(rng: random.Random) -> object:
    return rng.choice(
        (-1, 0, 1, 3, 2**31, 2**32, 2**63, 2**64, 10**30, 1.5, True, None, "7", "0x10", "+5", " 5", "5,5", [], {}, "９")
    )


def wrong_lengths(rng: random.Random) -> bytes:
    path = anywhere(rng, IMAGE)
    data = struct.pack("<I", rng.choice((len(PNG), len(PNG) + 1, 0, 2**31, 2**32 - 1))) + PNG
    match rng.randrange(3):
        case 0:
            return post(path, b"{}" + data, length=str(odd_number(rng)).encode("ascii", "replace").decode())
        case 1:
            return infer(path, image_entry(), data, size=odd_number(rng))
        case _:
            return infer(path, image_entry(), data, header=str(odd_number(rng)).encode("ascii", "replace").decode())


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    if depth < 3 and rng.random() < 0.3:
        return [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if depth < 3 and rng.random() < 0.3:
        return {rng.choice(("name", "data", "x", "")): odd_value(rng, depth + 1) for _ in range(rng.randrange(3))}
    return rng.choice((None, True, -1, 2**70, 1e308, 1e999, "", "x" * 300, "\ud800", "\0", "BYTES", [1, [2]]))


def odd_json(rng: random.Random) -> bytes:
    entry = tensor_entry(data=[0.5] * 64)
    whole: dict[str, Any] = {"id": "1", "inputs": [entry], "outputs": [{"name": "y"}], "parameters": {}}
    for _ in range(rng.randint(1, 3)):
        holder = rng.choice((whole, entry))
        extra = ("parameters", "tierwise_codec", "outputs")
        holder[rng.choice((*holder, *extra))] = odd_value(rng)
    return post(anywhere(rng, GRAPH), json.dumps(whole).encode())


def large_json(rng: random.Random) -> bytes:
    count = rng.choice((10_000, 600_000, 1_900_000))
    unit = rng.choice((b"0,", b"[],", b"{},", b"[", b'"a",', b'{"a":'))
    body = b'{"inputs":[' + unit * min(count, BODY_BYTES // len(unit)) + b"0]}"
    return post(anywhere(rng, GRAPH), body)


def chunked(rng: random.Random) -> bytes:
    lines = [f"POST {anywhere(rng, rng.choice((IMAGE, '/probe')))} HTTP/1.1", "Host: t", "Transfer-Encoding: chunked"]
    body = bytearray()
    for _ in range(rng.randrange(5)):
        data = rng.randbytes(rng.randrange(50))
        size = rng.choice((f"{len(data):x}", f"{len(data):X};a=b", "-1", "fffffffffffffffff", "0x5", "", " 5", "g"))
        size = f"{len(data):x}" if rng.random() < 0.6 else size
        body += size.encode() + rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n")) + data + b"\r\n"
    if rng.random() < 0.7:
        trailer = rng.choice((b"", b"", b"X: y\r\n", b"Content-Length: 5\r\n", b"a" * 70_000 + b": b\r\n"))
        body += b"0\r\n" + trailer + b"\r\n"
    return "\r\n".join([*lines, "", ""]).encode() + bytes(body)


def huge_head(rng: random.Random) -> bytes:
    size = rng.choice((3_000, 60_000, 70_000, 300_000))
    match rng.randrange(4):
        case 0:
            return b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: t\r\n\r\n"
        case 1:
            return b"GET /v2 HTTP/1.1\r\nHost: t\r\nX: " + b"a" * size + b"\r\n\r\n"
        case 2:
            return b"GET /v2 HTTP/1.1\r\n" + b"".join(b"h%d: v\r\n" % n for n in range(size // 8)) + b"\r\n"
        case _:
            return b"GET /v2 HTTP/1.1\r\n" + b"a" * size  # never ends


def smuggled(rng: random.Random) -> bytes:
    inner = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n"
    lengths = rng.choice(
        (
            b"Content-Length: 5\r\nContent-Length: %d\r\n" % len(inner),
            b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(inner),
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            b"Transfer-Encoding : chunked\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n",
            b"Transfer-Encoding:\x0bchunked\r\n",
            b"Content-Length: 5, 5\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length : 5\r\n",
            b" Content-Length: 5\r\n",
            b"X: a\rContent-Length: 5\r\n",
            b"X: a\nTransfer-Encoding: chunked\n",
            b"X: a\0b\r\n",
            b"Connection: content-length, host\r\nContent-Length: 44\r\n",
        )
    )
    return f"POST {anywhere(rng, '/probe')} HTTP/1.1\r\nHost: t\r\n".encode() + lengths + b"\r\n0\r\n\r\n" + inner


def pipelined(rng: random.Random) -> bytes:
    several = rng.choice((2, 5, 17, 60, 2000))
    if several == 2000:
        return b"GET /v2 HTTP/1.1\r\nHost: t\r\n\r\n" * several
    return b"".join(rng.choice((healthy, healthy, wrong_lengths))(rng) for _ in range(several))


def other_protocols(rng: random.Random) -> bytes:
    return rng.choice(
        (
            rng.randbytes(rng.randint(1, 3000)),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(400),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /v2 HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
            b"GET /v2 HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            b"CONNECT cloud:8000 HTTP/1.1\r\nHost: t\r\n\r\n",
            b"GET http://elsewhere/tiers/cloud/v2 HTTP/1.1\r\nHost: t\r\n\r\n",
            b"GET /tiers/cloud/tiers/cloud/../../v2 HTTP/1.1\r\nHost: t\r\n\r\n",
            b"GET /tiers%2fcloud/%2e%2e/v2?%00 HTTP/1.1\r\nHost: t\r\n\r\n",
            b"HEAD /tiers/cloud/v2 HTTP/1.1\r\nHost: t\r\n\r\n",
            b"HEAD /v2 HTTP/1.1\r\nHost: t\r\n\r\n",
            b"TRACE /v2 HTTP/1.1\r\nHost: t\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n",
            b"GET /v2 HTTP/0.9\r\n\r\n",
            b"GET /probe?bytes=" + str(odd_number(rng)).encode() + b" HTTP/1.0\r\n\r\n",
            b"\r\n" * rng.randint(1, 2000),
            b"POST /probe HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        )
    )


def bombs(rng: random.Random) -> bytes:
    match rng.randrange(4):
        case 0:  # a quarter of a gigabyte of zeros, declared as what it is, as less, as more
            entry = tensor_entry(shape=[rng.choice((2**26, 64, 2**39))], parameters={"tierwise_codec": "shuffle-zlib"})
            return infer(anywhere(rng, GRAPH), entry, bomb())
        case 1:
            data = [rng.choice(("AAAA", "A", "=", "A" * 10**6, "é", 5, None))] * rng.randint(1, 3)
            entry = tensor_entry(parameters={"tierwise_codec": "base64-json"}, data=data)
            return post(anywhere(rng, GRAPH), json.dumps({"inputs": [entry]}).encode())
        case 2:
            body = b'{"inputs":[{"name":"' + b"\\ud83d\\ude00" + b"a" * 1_900_000 + b'"}]}'
            return post(anywhere(rng, GRAPH), body)
        case _:
            picture = bytearray(PNG)
            picture[16:24] = struct.pack(">II", rng.choice((1, 70_000, 2**31 - 1)), rng.choice((1, 70_000)))
            picture[29:33] = struct.pack(">I", zlib.crc32(bytes(picture[12:29])))
            return infer(anywhere(rng, IMAGE), image_entry(), struct.pack("<I", len(picture)) + bytes(picture))


@cache
def bomb() -> bytes:
    """Return the largest body that unpacks to 256 MiB; to pack it takes a second."""
    return zlib.compress(bytes(2**28), 1)[: BODY_BYTES - 4096]


FAMILIES: dict[str, Callable[[random.Random], bytes]] = {
    "healthy": healthy,
    "flipped": flipped,
    "cut off": cut_off,
    "wrong lengths": wrong_lengths,
    "odd JSON": odd_json,
    "large JSON": large_json,
    "chunked": chunked,
    "huge head": huge_head,
    "smuggled": smuggled,
    "pipelined": pipelined,
    "other protocols": other_protocols,
    "bombs": bombs,
}
RARE = {"large JSON": 0.1, "bombs": 0.3, "huge head": 0.3, "pipelined": 0.5}


# -- the tiers --------------------------------------------------------------------------------------------------


class Running:
    """A tier as a process, its port and its log."""

    def __init__(self, name: str, directory: Path) -> None:
        limits = ["--max-body-bytes", str(BODY_BYTES), "--max-held-bytes", str(HELD_BYTES), "--timeout-s", "5"]
        self._log = (directory / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tierserver", "--name", name, "--port", "0", *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.name = name
        self.port = int(self._line()["port"])

    def load(self, parts: tuple[PartSpec, ...], routes: dict[str, str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": 1, **Load(parts, routes).to_json()}) + "\n")
        self._process.stdin.flush()
        answer = self._line()
        assert answer["ok"], answer

    def rss_bytes(self) -> int:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line


@contextlib.contextmanager
def two_tiers() -> Iterator[tuple[Running, Running]]:
    """`edge`, which relays to `cloud`; both serve `net`."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        flatten = helper.make_node("Flatten", ["x"], ["y"])
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])
        graph = helper.make_graph([flatten], "net", [x], [y])
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), f"{directory}/n.onnx"
        )
        part = PartSpec("net", f"{directory}/n.onnx", preprocess=Preprocess("gray", 8, 8), postprocess=TOP3)
        edge, cloud = Running("edge", Path(directory)), Running("cloud", Path(directory))
        for tier in (edge, cloud):
            stack.callback(tier.stop)
        cloud.load((part,), {})
        edge.load((part,), {"cloud": f"http://127.0.0.1:{cloud.port}"})
        yield edge, cloud


TOP3 = Postprocess("top_k", k=3)


# -- the run ----------------------------------------------------------------------------------------------------


def throw(port: int, raw: bytes, *, patience_s: float = PATIENCE_S) -> bytes:
    """Send, and read until nothing more comes."""
    answer = bytearray()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(raw)
            connection.settimeout(patience_s)
            while len(answer) < 2**16 and (data := connection.recv(2**16)):
                answer += data
    except (TimeoutError, ConnectionResetError):
        pass
    return bytes(answer)


class Watch(threading.Thread):
    """The most memory each tier took."""

    def __init__(self, tiers: tuple[Running, ...]) -> None:
        super().__init__(daemon=True)
        self._tiers = tiers
        self._ended = threading.Event()
        self.before = {tier.name: tier.rss_bytes() for tier in tiers}
        self.most = dict(self.before)

    def run(self) -> None:
        while not self._ended.wait(0.02):
            for tier in self._tiers:
                with contextlib.suppress(OSError, IndexError):
                    self.most[tier.name] = max(self.most[tier.name], tier.rss_bytes())

    def end(self) -> dict[str, int]:
        self._ended.set()
        self.join()
        return {name: self.most[name] - self.before[name] for name in self.most}


def fuzz(requests: int, seed: int) -> dict[str, Any]:
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in FAMILIES}
    faults: list[str] = []
    weights = [RARE.get(name, 1.0) for name in FAMILIES]

    with two_tiers() as (edge, cloud):

        def one(number: int) -> None:
            rng = random.Random(f"{seed} {number}")
            (name,) = rng.choices(list(FAMILIES), weights)
            raw = FAMILIES[name](rng)
            request = (
                raw if name != "healthy" else raw.replace(b"Host: tier\r\n", b"Host: tier\r\nConnection: close\r\n")
            )
            answer = throw(edge.port, request, patience_s=30 if name == "healthy" else PATIENCE_S)
            statuses = [int(status) for status in STATUS.findall(answer)]
            outcomes[name].update([str(status) for status in statuses] or ["closed or waiting"])
            if any(status >= 500 for status in statuses) or b"Traceback" in answer:
                faults.append(f"request {number} ({name}): {answer[:300]!r} to {raw[:200]!r}")
            if name == "healthy" and statuses not in ([200], [429]):
                faults.append(f"request {number}: a healthy request got {statuses}")

        one(0)
        throw(edge.port, infer("/tiers/cloud" + IMAGE, image_entry(), struct.pack("<I", len(PNG)) + PNG))
        watch = Watch((edge, cloud))
        watch.start()
        started = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(one, range(requests)))
        took_s = time.monotonic() - started
        growth = watch.end()
        for path in (IMAGE, "/tiers/cloud" + IMAGE):
            request = infer(path, image_entry(), struct.pack("<I", len(PNG)) + PNG)
            answer = throw(edge.port, request, patience_s=5)
            if not answer.startswith(b"HTTP/1.1 200"):
                faults.append(f"afterwards {path} does not answer: {answer[:200]!r}")
        for tier in (edge, cloud):
            if not tier.is_alive():
                faults.append(f"{tier.name} ended")
            if log := tier.log():
                faults.append(f"{tier.name} logged: {log[:2000]}")
            if growth[tier.name] > ALLOWED_GROWTH_BYTES:
                faults.append(f"{tier.name} grew by {growth[tier.name]} bytes; allowed: {ALLOWED_GROWTH_BYTES}")
    return {
        "requests": requests,
        "seed": seed,
        "seconds": round(took_s, 1),
        "outcomes": {name: dict(sorted(counted.items())) for name, counted in outcomes.items()},
        "memory_growth_mib": {name: round(value / 2**20, 1) for name, value in growth.items()},
        "memory_allowed_mib": round(ALLOWED_GROWTH_BYTES / 2**20, 1),
        "faults": faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Throw hostile requests at a tier.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = fuzz(options.requests, options.seed)
    print(json.dumps(result, indent=2))
    sys.exit(1 if result["faults"] else 0)


if __name__ == "__main__":
    main()
