"""Two replicas behind a reverse proxy that asks each whether it is ready, as a load balancer does."""

import http.client
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import pytest

from tests.recommender.conftest import Writer
from tests.recommender.test_workers import DRAIN_S, QUESTION, Client, Service, service_of, until

# How often the proxy asks: several times within the time that a replica drains.
ASKED_EVERY_S = 0.1


@dataclass
class Proxy:
    """Passes requests on to the replicas that say they are ready, in turn."""

    replicas: list[Service]
    answered: dict[int, int] = field(default_factory=dict)
    ready: list[Service] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    _turn: Iterator[int] = field(default_factory=count)

    def ask_all(self) -> None:
        while not self.stopped.wait(ASKED_EVERY_S):
            self.ready = [replica for replica in self.replicas if self._is_ready(replica)]

    def _is_ready(self, replica: Service) -> bool:
        try:
            return replica.get("/readyz")[0] == 200
        except OSError:
            return False

    def pass_on(self, path: str, body: bytes) -> tuple[int, bytes]:
        ready = self.ready
        replica = ready[next(self._turn) % len(ready)]
        with closing(http.client.HTTPConnection("127.0.0.1", replica.port, timeout=20)) as connection:
            connection.request("POST", path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        self.answered[replica.port] = self.answered.get(replica.port, 0) + 1
        return answer.status, content


def listening(proxy: Proxy) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, content = proxy.pass_on(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def proxy(path: Path, filled: object) -> Iterator[tuple[Proxy, int]]:
    """Start two replicas over one database and the proxy; yield it and its port."""
    with ExitStack() as stack:
        replicas = [stack.enter_context(service_of(path)) for _ in range(2)]
        behind = Proxy(replicas)
        server = listening(behind)
        threads = [threading.Thread(target=run) for run in (behind.ask_all, server.serve_forever)]
        for thread in threads:
            thread.start()
        until(lambda: len(behind.ready) == 2)
        yield behind, server.server_port
        behind.stopped.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()


def test_replicas_answer_alike_and_one_stops_under_load_without_a_lost_request(
    proxy: tuple[Proxy, int], filled: Writer
) -> None:
    behind, port = proxy
    answers = [json.loads(behind.pass_on("/recommend", QUESTION.encode())[1]) for _ in behind.replicas]
    assert answers[0] == answers[1] and answers[0]["summary"] and len(behind.answered) == 2
    filled.slo("fast", {"latency": {"p90": "1ms"}})
    question = json.dumps({"subject": "net", "slo": "fast"}).encode()
    # The first caller after a change may still get what was known before it.
    until(lambda: [behind.pass_on("/recommend", question)[0] for _ in behind.replicas] == [200, 200])
    clients = [Client(port) for _ in range(3)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    leaving, staying = behind.replicas
    try:
        before = dict(behind.answered)
        until(lambda: all(behind.answered[port] > number + 5 for port, number in before.items()))
        leaving.process.send(signal.SIGTERM)
        until(lambda: behind.ready == [staying], within_s=DRAIN_S)
        until(lambda: leaving.process.exit_code is not None)
        alone = behind.answered[staying.port]
        until(lambda: behind.answered[staying.port] > alone + 5)
    finally:
        for client in clients:
            client.stopped.set()
        for thread in threads:
            thread.join(20)
    assert [client.lost for client in clients] == [[]] * 3
    assert {status for client in clients for status in client.statuses} == {200}
    assert leaving.process.exit_code == 0
