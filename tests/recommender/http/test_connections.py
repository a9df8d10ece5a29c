"""What a stranger may do before any key is checked: heads and bodies without end, silence, a thousand connections."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recommender.http.connections import client_name, requesting_client
from recommender.settings import RecommenderSettings

MIB = 2**20
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LIMITS = {"MAX_HEAD_S": "1.5", "MAX_BODY_S": "1.5", "MAX_IDLE_S": "2", "MAX_WRITE_S": "1"}


@dataclass
class Service:
    """A `recommender` process on a port."""

    process: subprocess.Popen[str]
    port: int

    def connect(self, *pieces: bytes, source: str = "127.0.0.1") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20, source_address=(source, 0))
        for piece in pieces:
            connection.sendall(piece)
        return connection

    def ask(self, raw: bytes = ASK, *, source: str = "127.0.0.2") -> bytes:
        """Send one request on its own connection; return what comes back before a short silence."""
        with contextlib.closing(self.connect(raw, source=source)) as connection:
            return answer_of(connection)

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def answer_of(connection: socket.socket) -> bytes:
    """Return the first answer, or all bytes until the end."""
    answer = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            answer += data
            head, blank, body = bytes(answer).partition(b"\r\n\r\n")
            if blank and f"content-length: {len(body)}\r\n".encode() in head + b"\r\n":
                break
    return bytes(answer)


def problem_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    problem: dict[str, Any] = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {problem['status']} ".encode())
    return problem


def pour(connection: socket.socket, piece: bytes, *, limit_bytes: int = 64 * MIB) -> int:
    """Send the same bytes again and again until the service closes; how many it took."""
    total = 0
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while total < limit_bytes:
            connection.sendall(piece)
            total += len(piece)
    return total


@contextlib.contextmanager
def started(database: Path, **settings: str) -> Iterator[Service]:
    environment = {f"TIERWISE_{name}": value for name, value in {**LIMITS, **settings}.items()}
    command = [sys.executable, "-m", "recommender", "--port", "0", "--database", str(database)]
    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = ""
            while " on http://127.0.0.1:" not in line:
                line = process.stderr.readline()
                assert line, "the service ended"
            service = Service(process, int(line.partition("127.0.0.1:")[2].split()[0]))
            deadline = time.monotonic() + 20
            while not service.ask().startswith(b"HTTP/1.1 200") and time.monotonic() < deadline:
                time.sleep(0.05)
            yield service
        finally:
            process.kill()


@pytest.fixture(scope="module")
def service(template: Path) -> Iterator[Service]:
    with started(template) as running:
        yield running


@pytest.fixture
def connect(service: Service) -> Iterator[Callable[..., socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield lambda *pieces, **options: stack.enter_context(service.connect(*pieces, **options))


Connect = Callable[..., socket.socket]


@pytest.mark.parametrize(
    ("first", "endless"),
    [
        (b"GET /healthz HTTP/1.1\r\n", b"x-header: some value\r\n" * 1000),
        (b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n" * 1000),
        (b"GET /healthz HTTP/1.1\r\nx-header: ", b"a" * 65536),
        (b"GET /healthz HTTP/1.1\r\n", b"a" * 65536),
        (b"GET /", b"a" * 65536),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x-trailer: some value\r\n" * 1000),
    ],
    ids=["lines", "short lines", "value", "name", "target", "trailers"],
)
def test_a_head_without_end_takes_no_memory_and_is_told_431(
    service: Service, connect: Connect, first: bytes, endless: bytes
) -> None:
    before = service.rss_bytes()
    endless_ones = [connect(first) for _ in range(5)]
    assert all(pour(connection, endless) < 32 * MIB for connection in endless_ones)
    assert service.rss_bytes() - before < 20 * MIB
    answers = [answer_of(connection) for connection in endless_ones]
    assert any(problem_of(answer)["status"] == 431 for answer in answers if answer)
    assert service.ask().startswith(b"HTTP/1.1 200")


def test_too_many_header_lines_are_told_431_with_what_is_allowed(service: Service) -> None:
    problem = problem_of(service.ask(ASK[:-2] + b"a: b\r\n" * 100 + b"\r\n"))
    assert problem["status"] == 431 and "32768 bytes and 100 header lines" in problem["detail"]
    assert service.ask(ASK[:-2] + b"a: b\r\n" * 99 + b"\r\n").startswith(b"HTTP/1.1 200")


def test_a_head_that_trickles_is_told_408_and_silence_is_closed(service: Service, connect: Connect) -> None:
    trickling, silent = connect(b"GET /healthz HTTP/1.1\r\n"), connect()
    begun = time.monotonic()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - begun < 3:
            trickling.sendall(b"a")
            time.sleep(0.1)
    assert problem_of(answer_of(trickling))["status"] == 408
    assert answer_of(silent) == b""
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1\r\n"])
def test_a_body_that_does_not_come_is_told_408(service: Service, connect: Connect, framing: bytes) -> None:
    begun = time.monotonic()
    problem = problem_of(answer_of(connect(POST + framing + b"{")))
    assert problem["status"] == 408 and "body" in problem["detail"]
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("framing", "endless"),
    [
        (b"Content-Length: 999999999\r\n\r\n", b"a" * 65536),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"a" * 65536 + b"\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 10000),
        (b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 65536),
    ],
    ids=["declared", "chunks", "small chunks", "chunk extension"],
)
def test_a_body_without_end_is_told_413_and_not_read_on(
    service: Service, connect: Connect, framing: bytes, endless: bytes
) -> None:
    before = service.rss_bytes()
    connection = connect(POST + framing)
    assert pour(connection, endless) < 16 * MIB
    assert service.rss_bytes() - before < 20 * MIB
    answer = answer_of(connection)
    assert not answer or problem_of(answer)["status"] == 413


def test_a_body_a_little_too_large_sees_its_413(service: Service) -> None:
    for framing in (b"Content-Length: 70000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n11170\r\n"):
        problem = problem_of(service.ask(POST + framing + b"a" * 70000 + b"\r\n0\r\n\r\n"))
        assert problem["status"] == 413 and "65536 bytes" in problem["detail"]


def test_a_thousand_silent_connections_of_one_client_cost_the_others_nothing(
    service: Service, connect: Connect
) -> None:
    silent = []
    for number in range(1000):
        silent.append(connect())
        if number % 100 == 99:
            assert service.ask().startswith(b"HTTP/1.1 200")
            assert service.ask(source="127.0.0.1").startswith(b"HTTP/1.1 200")
    assert service.open_files() < 300


def test_slow_bodies_and_heads_of_many_addresses_leave_room_for_the_next(template: Path) -> None:
    """The client with the most connections gives way first, whether it is silent or in the middle of a request."""
    settings = {"MAX_CONNECTIONS": "50", "MAX_CLIENT_CONNECTIONS": "20"}
    with (
        started(template, MAX_HEAD_S="20", MAX_BODY_S="20", **settings) as service,
        contextlib.ExitStack() as stack,
    ):
        for number in range(3, 9):
            pieces = [POST + b"Content-Length: 9\r\n\r\n"] if number % 2 else [b"GET /"]
            for _ in range(30):
                stack.enter_context(service.connect(*pieces, source=f"127.0.0.{number}"))
        modest = stack.enter_context(service.connect(source="127.0.0.2"))
        assert service.ask(source="127.0.0.9").startswith(b"HTTP/1.1 200")
        modest.sendall(ASK)
        assert answer_of(modest).startswith(b"HTTP/1.1 200")


def test_one_client_has_its_share_of_requests_under_way_and_the_others_theirs(
    service: Service, connect: Connect
) -> None:
    pending = [connect(POST + b"Content-Length: 2\r\n\r\n{") for _ in range(20)]
    time.sleep(0.3)
    answer = service.ask(source="127.0.0.1")
    assert problem_of(answer)["status"] == 429 and b"retry-after: 1\r\n" in answer
    assert service.ask(source="127.0.0.2").startswith(b"HTTP/1.1 200")
    for connection in pending:
        connection.sendall(b"}")
        assert problem_of(answer_of(connection))["status"] == 422
    assert service.ask(source="127.0.0.1").startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_answered_in_order_and_are_not_endless(service: Service, connect: Connect) -> None:
    connection = connect(ASK * 5)
    answer = bytearray()
    while answer.count(b"HTTP/1.1 200") < 5:
        answer += connection.recv(65536)
    before = service.rss_bytes()
    assert pour(connect(), ASK * 1000) < 32 * MIB
    assert service.rss_bytes() - before < 30 * MIB
    assert service.ask().startswith(b"HTTP/1.1 200")


def test_a_client_that_takes_no_answers_is_closed(service: Service, connect: Connect) -> None:
    connection = connect()
    connection.settimeout(30)
    many = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10
    begun = time.monotonic()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            connection.sendall(many)
            time.sleep(0.01)
    assert time.monotonic() - begun < 60


def test_noise_and_upgrades_are_refused_in_one_line_of_the_log(template: Path) -> None:
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with started(template) as service:
        assert problem_of(service.ask(b"\x16\x03\x01\x02\x00 noise\r\n\r\n"))["status"] == 400
        assert service.ask(upgrade).startswith(b"HTTP/1.1 200")
        counts = service.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").decode()
        service.process.terminate()
        _, said = service.process.communicate(timeout=10)
    assert "Invalid HTTP" not in said and "Traceback" not in said
    # What never became a request is a line too, without any of its bytes.
    assert re.search(r'^127\.0\.0\.2 - - \[[^]]+\] "-" 400 \d+ 0\.000000$', said, re.MULTILINE) and "noise" not in said
    assert 'tierwise_requests_total{method="(other)",route="(refused)",status="400"} 1.0' in counts


def test_idle_connections_end_and_a_connection_serves_again_and_again(service: Service, connect: Connect) -> None:
    connection = connect()
    for _ in range(3):
        connection.sendall(ASK)
        assert answer_of(connection).startswith(b"HTTP/1.1 200")
        time.sleep(0.7)
    begun = time.monotonic()
    assert connection.recv(1) == b"" and time.monotonic() - begun < 30


def test_behind_a_trusted_proxy_clients_are_those_that_it_names(template: Path) -> None:
    def forwarded(address: str, raw: bytes) -> bytes:
        return raw.replace(b"Host: localhost\r\n", b"Host: localhost\r\nX-Forwarded-For: %b\r\n" % address.encode())

    settings = {"TRUSTED_PROXIES": '["127.0.0.3"]', "MAX_CLIENT_REQUESTS": "2", "MAX_CLIENT_CONNECTIONS": "3"}
    slow = POST + b"Content-Length: 2\r\n\r\n{"
    with started(template, MAX_BODY_S="20", **settings) as service, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(service.connect(forwarded("127.0.0.77", slow), source="127.0.0.3"))
        time.sleep(0.3)
        assert problem_of(service.ask(forwarded("127.0.0.77", ASK), source="127.0.0.3"))["status"] == 429
        assert problem_of(service.ask(forwarded("9.9.9.9, 127.0.0.77", ASK), source="127.0.0.3"))["status"] == 429
        for _ in range(5):
            stack.enter_context(service.connect(source="127.0.0.3"))
        assert service.ask(forwarded("127.0.0.78", ASK), source="127.0.0.3").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("address", "forwarded", "client"),
    [
        ("192.0.2.1", b"", "192.0.2.1"),
        ("192.0.2.1", b"198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", b"198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", b"203.0.113.1, 198.51.100.7:4711, 10.0.0.2", "198.51.100.7"),
        ("10.0.0.1", b"[2001:db8::7]:80", "2001:db8::/64"),
        ("::ffff:10.0.0.1", b"2001:db8:0:0:9::7", "2001:db8::/64"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"unknown", "unknown"),
    ],
)
def test_whom_a_request_counts_for(address: str, forwarded: bytes, client: str) -> None:
    proxies = RecommenderSettings(trusted_proxies=("10.0.0.0/8",)).trusted_proxies  # type: ignore[arg-type]
    headers = [(b"x-forwarded-for", forwarded)] if forwarded else []
    assert requesting_client(address, headers, proxies) == client


def test_a_client_has_one_name_however_its_address_is_written() -> None:
    assert client_name("::ffff:192.0.2.1") == client_name("192.0.2.1")
    assert client_name("2001:db8::1%eth0") == client_name("2001:db8::ffff")
    assert client_name("") == ""
