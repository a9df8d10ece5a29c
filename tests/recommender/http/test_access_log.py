"""One line for each request: readable by the field's tools, without keys, and never in the way of an answer."""

import io
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from recommender.app import create_app
from recommender.http.middleware import AccessLog, request_line
from recommender.settings import RecommenderSettings
from tests.recommender.conftest import Client

KEY = "0123456789abcdef-key"
LINE = re.compile(r'(\S+) - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "([^"]*)" (\d{3}) (\d+) (\d+\.\d{6})\n')


def logged(location: str, *requests: tuple[str, str, dict[str, Any]]) -> tuple[list[re.Match[str]], str]:
    """Ask a service with a key; return the parsed lines of its log and its metrics."""
    stream = io.StringIO()
    log = AccessLog(stream)
    app = create_app(RecommenderSettings(database=location, api_key=KEY), log=log)  # type: ignore[arg-type]
    client = Client(app)
    for method, path, content in requests:
        client.request(method, path, **content)
    metrics = client.get("/metrics", headers={"x-api-key": KEY}).text
    app.state.snapshots.close()
    log.close()
    lines = stream.getvalue().splitlines(keepends=True)
    matches = [match for line in lines if (match := LINE.fullmatch(line))]
    assert len(matches) == len(lines)
    return matches, metrics


def test_every_request_has_a_line_and_is_counted_by_status(location: str, filled: object) -> None:
    key = {"x-api-key": KEY}
    lines, metrics = logged(
        location,
        ("POST", "/recommend", {"json": {"subject": "net"}, "headers": key}),
        ("POST", "/recommend", {"json": {"subject": "nett"}, "headers": key}),
        ("POST", "/recommend", {"json": {"subject": 1}, "headers": key}),
        ("POST", "/recommend", {"json": {"subject": "net"}}),
        ("GET", "/nowhere", {"headers": key}),
    )
    shown = [(line[2], line[3]) for line in lines]
    ask = "POST /recommend HTTP/1.1"
    assert shown[:4] == [(ask, status) for status in ("200", "404", "422", "401")]
    assert shown[4:] == [("GET /nowhere HTTP/1.1", "404"), ("GET /metrics HTTP/1.1", "200")]
    assert int(lines[0][4]) > 1000 and float(lines[0][5]) > 0 and lines[0][1] == "127.0.0.1"
    for status in (200, 404, 422):
        assert f'tierwise_requests_total{{method="POST",route="/recommend",status="{status}"}} 1.0' in metrics
    # A request that is refused before it is routed has no route.
    assert 'tierwise_requests_total{method="POST",route="(other)",status="401"} 1.0' in metrics


def test_a_line_holds_neither_a_key_nor_a_control_character(location: str, filled: object) -> None:
    key = {"x-api-key": KEY}
    lines, _ = logged(
        location,
        ("GET", f"/strategies/{KEY}", {"headers": key}),
        ("GET", f"/subjects?key={KEY}", {"headers": key}),
        ("GET", "/strategies/%1b%5d0;title%07%0a%22%20%e2%80%ae%c2%9b", {"headers": key}),
        ("GET", "/" + "a" * 5000, {"headers": key}),
    )
    text = "".join(line[0] for line in lines)
    assert KEY not in text and "%C2%9B" in text and re.fullmatch(r"[\n -~]*", text)
    assert lines[0][2] == "GET /strategies/*** HTTP/1.1" and lines[1][2] == "GET /subjects HTTP/1.1"
    assert len(lines[3][2]) < 400


@pytest.mark.parametrize(
    ("method", "path", "line"),
    [
        ("GET", "/a\r\nb", "GET /a%0D%0Ab HTTP/1.1"),
        ("GET", '/"x"\\', "GET /%22x%22%5C HTTP/1.1"),
        ("GET\x1b[2J", "/ü\udcff", "GET%1B%5B2J /%C3%BC%3F HTTP/1.1"),
    ],
)
def test_a_request_is_printable(method: str, path: str, line: str) -> None:
    assert request_line(method, path, "1.1") == line


class Stuck(io.StringIO):
    """A terminal that was stopped, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.stuck = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.stuck.set()
        self.free.wait(10)
        return super().write(text)


def test_a_log_that_nobody_reads_stops_nothing_and_says_what_it_dropped() -> None:
    stream = Stuck()
    log = AccessLog(stream)
    for number in range(10_002):
        log.write(client="::1", request="GET / HTTP/1.1", status=200, sent_bytes=1, duration_s=0.1)
        assert number or stream.stuck.wait(5)
    stream.free.set()
    log.close()
    assert stream.getvalue().count("GET /") == 10_001 and "access log: 1 line dropped" in stream.getvalue()


def test_a_closed_stream_ends_nothing(tmp_path: Path) -> None:
    stream = (tmp_path / "log").open("w")
    stream.close()
    log = AccessLog(stream)
    log.write(client="", request="GET / HTTP/1.1", status=200, sent_bytes=1, duration_s=0.1)
    log.close()
