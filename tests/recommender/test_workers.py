"""Several workers behind one port, and a stop under load: every request that was sent is answered."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.recommender.forked_service import ForkedService, start

QUESTION = json.dumps({"subject": "net", "max_latency_s": 0.5})
DRAIN_S = 4.0


@dataclass
class Client:
    """Sends one question after another on connections that it keeps, until the service is gone."""

    port: int
    statuses: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self.stopped.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return
            try:
                connection.request("POST", "/recommend", QUESTION, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                return
            self.statuses.append(answer.status)
            if answer.will_close:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


@dataclass
class Service:
    process: ForkedService
    port: int
    said: list[str] = field(default_factory=list)

    def get(self, path: str) -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in children.read_text().split()}


@contextmanager
def service_of(path: Path, *options: str) -> Iterator[Service]:
    """Start the service over a database; yield it once it listens."""
    settings = {"TIERWISE_DRAIN_S": str(DRAIN_S), "TIERWISE_ACCESS_LOG": "false"}
    process = start(["--port", "0", *options, "--database", str(path)], settings)
    try:
        announced = process.stderr.readline()
        assert "Tierwise recommender on http://127.0.0.1:" in announced
        process.stderr.readline()  # the example
        yield Service(process, int(announced.split("127.0.0.1:")[1].split()[0]))
    finally:
        process.end()


@pytest.fixture
def service(path: Path, filled: object) -> Iterator[Service]:
    with service_of(path, "--workers", "2") as started:
        yield started


def until(holds: object, *, within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_request_is_lost_when_a_worker_and_then_the_service_stops_under_load(service: Service) -> None:
    until(lambda: len(service.workers()) == 2)
    before = service.workers()
    clients = [Client(service.port) for _ in range(4)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(len(client.statuses) > 5 for client in clients))
        os.kill(min(before), signal.SIGTERM)
        # Another one takes its place, while the port answers all the time.
        until(lambda: len(service.workers() - before) == 1 and len(service.workers()) == 2)
        service.process.send(signal.SIGTERM)
        time.sleep(DRAIN_S / 4)
        draining = [service.get("/readyz") for _ in range(2)]
        alive = service.get("/healthz")
        for thread in threads:
            thread.join(20)
    finally:
        for client in clients:
            client.stopped.set()
    assert [client.lost for client in clients] == [[]] * 4
    assert {status for client in clients for status in client.statuses} == {200}
    assert all(len(client.statuses) > 5 for client in clients)
    assert {status for status, _ in draining} == {503} and "about to stop" in draining[0][1]
    assert alive[0] == 200
    assert service.process.wait(20) == 0
    said = service.process.stderr.read()
    assert "Traceback" not in said
    assert f"worker {min(before)} ended (exit code 0); another one is started" in said


def test_workers_end_when_what_started_them_is_killed(service: Service) -> None:
    until(lambda: len(service.workers()) == 2)
    workers = service.workers()
    service.process.send(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_keeps_the_first_worker_from_starting_is_said_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recommender", "--port", "0", "--workers", "3", "-d", str(tmp_path / "none.db")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.count("error:") == 1 and "runner fill-catalog" in ended.stderr
