"""Clients that send too much, too slowly, too many at once, or two requests in one: a tier keeps its limits."""

import contextlib
import http.client
import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from tierserver import protocol

ROOT = Path(__file__).parents[2]
INFER = b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\n"
MIB = 2**20


@pytest.fixture(scope="module")
def small(start, part):
    """A tier with small limits and little patience."""
    limits = ("--max-body-bytes", str(4 * MIB), "--max-held-bytes", str(8 * MIB), "--max-connections", "130")
    with start("--name", "small", "--port", "0", "--timeout-s", "1", *limits) as tier:
        tier.load(part())
        yield tier


@pytest.fixture
def connect(small):
    with contextlib.ExitStack() as stack:

        def connected(*sent):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", small.ready["port"]), timeout=20))
            for chunk in sent:
                connection.sendall(chunk)
            return connection

        yield connected


def received(connection):
    """Everything until the tier closes the connection."""
    answer = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            answer += data
    return bytes(answer)


def serves(tier, image):
    body = protocol.encode_image_request(image(1))
    connection = http.client.HTTPConnection("127.0.0.1", tier.ready["port"], timeout=20)
    headers = {"Inference-Header-Content-Length": str(body.header_length)}
    try:
        connection.request("POST", "/v2/models/net/infer", b"".join(body.pieces), headers)
        return connection.getresponse().status == 200
    finally:
        connection.close()


def rss_bytes(tier):
    return int(Path(f"/proc/{tier.process.pid}/statm").read_text().split()[1]) * 4096


def open_files(tier):
    return len(list(Path(f"/proc/{tier.process.pid}/fd").iterdir()))


def test_a_hundred_slow_senders_hold_nothing_for_long(small, connect, image):
    before = rss_bytes(small)
    slow = [connect(INFER + b"Content-Length: 4000000\r\n\r\n", b"x") for _ in range(100)]
    assert serves(small, image)
    assert rss_bytes(small) - before < 40 * MIB  # 400 MB are declared, none of it came
    started = time.monotonic()
    answers = [received(sock) for sock in slow]
    assert time.monotonic() - started < 20
    assert all(answer.startswith(b"HTTP/1.1 408") and b"1024 bytes per second" in answer for answer in answers)


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HTTP/1.1\r\nHos", b"\r\n", INFER + b"Content-Length: 5000000\r\n\r\n"])
def test_a_connection_that_says_no_more_is_closed(small, connect, image, sent):
    silent = [connect(sent) for _ in range(20)]
    answers = [received(sock) for sock in silent]
    assert all(answer == b"" or answer.startswith((b"HTTP/1.1 408", b"HTTP/1.1 413")) for answer in answers)
    assert serves(small, image)


def test_trickling_line_ends_does_not_keep_a_connection(connect):
    connection = connect(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - started < 30:
            connection.sendall(b"\r\n")
            time.sleep(0.1)
    assert time.monotonic() - started < 20


def test_more_connections_than_allowed_make_room_for_new_ones(small, connect, image):
    many = [connect() for _ in range(200)]
    assert serves(small, image)
    assert all(received(sock) == b"" for sock in many)


def test_bodies_together_are_limited_until_they_are_answered(small, connect, image):
    before = rss_bytes(small)
    length = str(4_000_000).encode()
    many = [connect(INFER + b"Content-Length: " + length + b"\r\n\r\n", bytes(3_900_000)) for _ in range(6)]
    refused = [sock for sock in many if b"HTTP/1.1 429" in received(sock)]
    assert len(refused) >= 3 and rss_bytes(small) - before < 60 * MIB
    assert serves(small, image)


def settled_files(tier):
    """How many files are open once the connections of earlier tests are closed."""
    deadline, counted = time.monotonic() + 20, -1
    while (now := open_files(tier)) != counted:
        assert time.monotonic() < deadline
        counted = now
        time.sleep(0.3)
    return counted


def test_a_reader_that_does_not_read_is_cut_off(small, connect, image):
    before = settled_files(small)
    connection = connect(b"GET /probe?bytes=200000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert open_files(small) == before + 1
    deadline = time.monotonic() + 20
    while open_files(small) > before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert serves(small, image)


@pytest.mark.parametrize("size", [70_000, 2_000_000])
@pytest.mark.parametrize("where", [b"GET /%b", b"GET /v2 HTTP/1.1\r\nX: %b", b"GET /v2 HTTP/1.1\r\n%b: y\r\n\r\n"])
def test_a_huge_head_is_refused_before_it_is_whole(small, connect, image, where, size):
    before = rss_bytes(small)
    connection = connect()
    with contextlib.suppress(ConnectionError):
        connection.sendall(where % (b"a" * size))
    answer = received(connection)
    assert answer == b"" or (answer.startswith(b"HTTP/1.1 431") and b"65536" in answer)
    assert rss_bytes(small) - before < 8 * MIB and serves(small, image)


def test_pipelined_requests_are_answered_in_order_up_to_a_limit(small, connect, image):
    request = b"GET /v2/models/net HTTP/1.1\r\nHost: x\r\n\r\n"
    few = connect(request * 10)
    answer = b""
    while answer.count(b"HTTP/1.1 200") < 10:
        answer += few.recv(65536)
    assert received(connect(request * 5000)).count(b"HTTP/1.1 200") < 40
    assert serves(small, image)


INNER = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nContent-Length: 60\r\n",
        b"Content-Length: 60\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length: 4, 4\r\n",
        b"Content-Length: +4\r\n",
        b" Content-Length: 4\r\n",
        b"X: a\rContent-Length: 4\r\n",
    ],
)
@pytest.mark.parametrize("path", [b"/probe", b"/tiers/cloud/probe"])
def test_ambiguous_framing_is_refused_and_nothing_is_smuggled(tiers, framing, path):
    tiers.edge.load(cloud=tiers.cloud.url)
    with socket.create_connection(("127.0.0.1", tiers.edge.ready["port"]), timeout=5) as connection:
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n0\r\n\r\n" + INNER)
        answer = received(connection)
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_a_relay_takes_only_methods_whose_answers_it_can_frame(tiers):
    tiers.edge.load(cloud=tiers.cloud.url)
    for method in ("HEAD", "DELETE", "OPTIONS"):
        connection = http.client.HTTPConnection("127.0.0.1", tiers.edge.ready["port"], timeout=5)
        connection.request(method, "/tiers/cloud/v2")
        assert connection.getresponse().status == 405
        connection.close()


def test_compressed_tensors_cannot_grow_beyond_the_limit(small, part, models):
    array = np.zeros(8 * MIB, np.float32)  # 32 MiB of zeros are a few KB on the wire
    body = protocol.encode_tensor_request({"x": array}, "shuffle-zlib")
    assert body.size_bytes < 200_000
    connection = http.client.HTTPConnection("127.0.0.1", small.ready["port"], timeout=20)
    headers = {"Inference-Header-Content-Length": str(body.header_length)}
    connection.request("POST", "/v2/models/net.graph/infer", b"".join(body.pieces), headers)
    response = connection.getresponse()
    assert response.status == 413 and b"unpacked" in response.read()
    connection.close()


def test_json_of_too_many_values_is_refused(small):
    connection = http.client.HTTPConnection("127.0.0.1", small.ready["port"], timeout=20)
    for body, says in ((b"[" + b"0," * 10**6 + b"0]", b"JSON part"), (b"[" + b"0" * (3 * MIB) + b"]", b"JSON part")):
        connection.request("POST", "/v2/models/net.graph/infer", body)
        response = connection.getresponse()
        assert response.status in (400, 413) and (says in response.read() or response.status == 400)
    connection.close()
