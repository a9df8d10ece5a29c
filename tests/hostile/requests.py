"""Requests to the recommender that are no questions, sent to a real server."""

import atexit
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import httpx
import uvicorn

from recommender.app import create_app
from recommender.settings import RecommenderSettings
from tests.hostile.cases import Attempt, Case, Section
from tests.hostile.door import Said
from tests.hostile.project import copy_project

_JSON = {"content-type": "application/json"}


@cache
def _address() -> str:
    """Return the address of a service over the sound project's evidence; it ends with this process."""
    holder = tempfile.TemporaryDirectory(prefix="tierwise-asked-")
    folder = copy_project(Path(holder.name))
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(RecommenderSettings(database=str(folder / "tierwise.db")))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(10)
        listener.close()
        holder.cleanup()

    atexit.register(stop)
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def _send(content: bytes, headers: Mapping[str, str] = _JSON, method: str = "POST") -> Attempt:
    """Return its status as the exit code and its problem as the message; the service still answers afterwards."""

    def attempt(folder: Path) -> Said:
        with httpx.Client(base_url=_address(), timeout=30) as client:
            answer = client.request(method, "/recommend", content=content, headers=dict(headers))
            assert answer.headers["content-type"] == "application/problem+json", answer.text
            assert client.get("/healthz").status_code == 200
        problem = answer.json()
        assert problem["status"] == answer.status_code and "Traceback" not in answer.text
        return Said(answer.status_code, "", f"{answer.status_code} {problem['title']}: {problem['detail']}")

    return attempt


def _case(name: str, code: int, says: str, attempt: Attempt) -> Case:
    return Case(name, lambda folder: None, says, (), attempt=attempt, code=code)


CASES = (
    _case("is no JSON", 422, "one JSON object", _send(b"subject=mine")),
    _case("is not text", 400, "not UTF-8", _send(b'{"subject": "\xff\xfe"}')),
    _case("nests a hundred thousand lists", 413, "larger than", _send(b"[" * 100_000)),
    _case("nests thirty thousand lists", 400, "nests too deeply", _send(b"[" * 30_000 + b"]" * 30_000)),
    _case("holds 10 MB", 413, "larger than", _send(b" " * 10_000_000)),
    _case("is of another type", 422, "application/json", _send(b'{"subject": "mine"}', {"content-type": "text/plain"})),
    _case("is a list", 422, "JSON object", _send(b"[1, 2]")),
    _case("holds NaN", 422, "max_latency_s", _send(b'{"subject": "mine", "max_latency_s": NaN}')),
    _case("holds a number beyond any", 422, "max_latency_s", _send(b'{"subject": "mine", "max_latency_s": 1e999}')),
    _case(
        "has a number of 5000 digits",
        400,
        "too many digits",
        _send(b'{"subject": "mine", "max_latency_s": ' + b"9" * 5000 + b"}"),
    ),
    _case("has a number as a string", 422, "max_latency_s", _send(b'{"subject": "mine", "max_latency_s": "fast"}')),
    _case("has half a character in a name", 422, "valid string", _send(b'{"subject": "\\ud800"}')),
    _case("has a zero byte in a name", 404, "is not in the evidence", _send(b'{"subject": "\\u0000"}')),
    _case("has an unknown field", 422, "no such field", _send(b'{"subject": "mine", "budget": 3}')),
    _case("asks for an unknown subject", 404, "is not in the evidence", _send(b'{"subject": "yours"}')),
    _case("is a GET", 405, "POST", _send(b"", {}, "GET")),
    _case("is meant for another host (DNS rebinding)", 421, "evil.example", _send(b"", {"host": "evil.example"})),
)
SECTION = Section(
    "Requests to the recommender",
    "`POST /recommend`. Each answer is a problem document (RFC 9457); its status, title and detail are shown. Beside "
    "these, the service is fuzzed from its own OpenAPI document (`tests/recommender/test_live.py`).",
    ("the request", "what is answered"),
    CASES,
)
