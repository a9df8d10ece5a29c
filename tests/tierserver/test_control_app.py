"""The control port in process: strangers get nowhere, and the holder of the token cannot reach beyond its launch."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tierserver.control_app import ControlApp, ControlOptions, Reservation
from tierserver.file_cache import FileCache
from tierserver.limits import Limits
from tierserver.messages import CONTROL_PROTOCOL, LEASE_S, ServerFacts, TierFacts
from tierserver.serve import ListenAddress, read_token
from tierserver.serve import main as serve_main

TOKEN = "0123456789abcdef"
ABOUT = ServerFacts(CONTROL_PROTOCOL, "1", 0, 1000, TierFacts("cpu", False, "", "1", ("CPUExecutionProvider",)))
OWN = {
    "authorization": f"Bearer {TOKEN}",
    "tierwise-control": str(CONTROL_PROTOCOL),
    "tierwise-holder": "me",
    "host": "board:8000",
}


@dataclass
class Port:
    """A control port without a network."""

    app: ControlApp
    now: list[float]
    received: int = field(default=0)

    def ask(
        self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None, **extra: str
    ) -> tuple[int, dict[str, Any]]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent: list[Any] = []
        self.received = 0

        async def receive() -> dict[str, Any]:
            self.received += 1
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        fields = {"content-length": str(len(content)), **(OWN if headers is None else headers), **extra}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
        }
        asyncio.run(self.app(scope, receive, send))
        return sent[0]["status"], json.loads(b"".join(message["body"] for message in sent[1:]))

    def hold(self, holder: str = "me", who: str = "anna@lab") -> tuple[int, dict[str, Any]]:
        return self.ask("POST", "/control/hold", {"holder": holder, "who": who})


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Port]]:
    caches: list[FileCache] = []

    def made(token: str | None = TOKEN) -> Port:
        now = [1000.0]
        caches.append(FileCache(tmp_path / "cache", max_bytes=1000))
        options = ControlOptions(ABOUT, token, "127.0.0.1")
        return Port(ControlApp(options, caches[-1], Reservation(lambda: now[0]), Limits(max_body_bytes=2**20)), now)

    yield made
    for cache in caches:
        cache.close()


@pytest.fixture
def port(make: Callable[..., Port]) -> Port:
    return make()


@pytest.mark.parametrize(
    "value", [None, "", "Bearer ", "Bearer 0123456789abcde", f"Bearer {TOKEN}x", "Bearer é", TOKEN[:-1]]
)
def test_without_the_token_nothing_is_read_and_nothing_is_learnt(port: Port, value: str | None) -> None:
    headers = {key: text for key, text in OWN.items() if key != "authorization"}
    if value is not None:
        headers["authorization"] = value
    answers = [
        port.ask(method, path, b"x", headers)
        for method, path in (
            ("GET", "/control"),
            ("POST", "/control/launch"),
            ("PUT", "/control/files/x"),
            ("GET", "/"),
        )
    ]
    assert {status for status, _ in answers} == {401} and len({json.dumps(body) for _, body in answers}) == 1
    assert port.received == 0


def test_a_web_page_cannot_make_a_request(make: Callable[..., Port]) -> None:
    port = make(token=None)
    own = {"host": "127.0.0.1:8000", "tierwise-control": str(CONTROL_PROTOCOL)}
    assert port.ask("GET", "/control", headers=own)[0] == 200
    assert port.ask("GET", "/control", headers={**own, "host": "rebound.example:8000"})[0] == 403
    assert port.ask("GET", "/control", headers={"host": "127.0.0.1:8000"})[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/control/hold", b"not json", 400),
        ("POST", "/control/hold", b"[" * 5000, 400),
        ("POST", "/control/hold", [1], 400),
        ("POST", "/control/hold", {"holder": "me"}, 400),
        ("POST", "/control/hold", {"holder": "", "who": "x"}, 400),
        ("POST", "/control/hold", {"holder": "x" * 201, "who": "x"}, 400),
        ("POST", "/control/hold", {"holder": "me", "who": 7}, 400),
        ("POST", "/control/hold", bytes(2**20 + 1), 413),
        ("POST", "/control/missing", {"sha256": ["../../etc/passwd"]}, 400),
        ("POST", "/control/missing", {"sha256": "0"}, 400),
        ("PUT", "/control/files/..%2f..%2fevil", b"x", 400),
        ("PUT", "/control/files/" + "0" * 64, b"x", 400),
        ("PUT", "/control/files/" + "0" * 64, bytes(1001), 413),
        ("PUT", "/control/files/../../evil", b"x", 404),
        ("DELETE", "/control/files/evil", b"", 400),
        ("POST", "/control/launch", {"name": "../x", "threads": 1, "memory_bytes": 1}, 400),
        ("POST", "/control/launch", {"name": "--serve", "threads": 1, "memory_bytes": 1}, 400),
        ("POST", "/control/launch", {"name": "m", "threads": 0, "memory_bytes": 1}, 400),
        ("POST", "/control/launch", {"name": "m", "threads": 1, "memory_bytes": 1, "files": {"m/x": "../x"}}, 400),
        ("POST", "/control/launch", {"name": "m", "threads": 1, "memory_bytes": 1, "files": {"m/x": "0" * 64}}, 404),
        ("POST", "/control/commands", b'{"cmd": "stats"}\n', 409),
        ("DELETE", "/control", b"", 405),
        ("GET", "/control/launch", b"", 405),
        ("GET", "/v2", b"", 404),
    ],
)
def test_a_wrong_request_gets_its_reason_and_changes_nothing(
    port: Port, tmp_path: Path, method: str, path: str, body: Any, status: int
) -> None:
    port.hold()
    before = sorted(tmp_path.rglob("*"))
    got, answer = port.ask(method, path, body)
    assert got == status and answer["error"] and "Traceback" not in answer["error"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_second_runner_learns_who_holds_the_server_and_since_when(port: Port) -> None:
    assert port.hold()[0] == 200
    port.now[0] += 7
    assert port.hold("other", "ben@office") == (
        409,
        {"error": "this tier server is in use by anna@lab, since 7 s; try again when it is done"},
    )
    for method, path in (
        ("POST", "/control/launch"),
        ("PUT", "/control/files/" + "0" * 64),
        ("POST", "/control/commands"),
    ):
        status, answer = port.ask(method, path, {}, **{"tierwise-holder": "other"})
        assert status == 409 and "anna@lab" in answer["error"]
    port.ask("POST", "/control/release", {"holder": "other"})
    assert port.hold("other")[0] == 409  # only its holder gives a reservation back
    port.ask("POST", "/control/release", {"holder": "me"})
    assert port.hold("other")[0] == 200


def test_a_holder_without_a_sign_of_life_loses_the_server(port: Port) -> None:
    port.hold(who="\x1b[31mred")
    port.now[0] += LEASE_S - 1
    port.hold(who="\x1b[31mred")
    port.now[0] += LEASE_S - 1
    assert (
        port.hold("other")[1]["error"]
        == "this tier server is in use by ?[31mred, since 38 s; try again when it is done"
    )
    port.now[0] += 1
    assert "lapsed without a sign of life" in port.ask("POST", "/control/commands", b"")[1]["error"]
    assert port.hold("other")[0] == 200
    assert port.hold("me")[0] == 409


def test_files_go_over_once(port: Port) -> None:
    digest = hashlib.sha256(b"model").hexdigest()
    port.hold()
    assert port.ask("POST", "/control/missing", {"sha256": [digest]})[1] == {"sha256": [digest]}
    assert port.ask("PUT", f"/control/files/{digest}", b"model")[0] == 200
    assert port.ask("POST", "/control/missing", {"sha256": [digest]})[1] == {"sha256": []}
    assert port.ask("PUT", f"/control/files/{digest}", b"model", **{"content-length": "3"})[0] == 413
    assert port.ask("DELETE", f"/control/files/{digest}")[0] == 200
    assert port.ask("POST", "/control/missing", {"sha256": [digest]})[1] == {"sha256": [digest]}


def test_a_token_file_is_made_once_and_a_short_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = read_token(tmp_path / "token")
    assert len(token) == 32 and read_token(tmp_path / "token") == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600 and not capsys.readouterr().err
    (tmp_path / "token").chmod(0o644)
    assert read_token(tmp_path / "token") == token and "chmod 600" in capsys.readouterr().err
    for text in ("", "short", "a token with blanks in it", "é" * 20):
        (tmp_path / "token").write_text(text)
        with pytest.raises(ValueError, match=r"holds no token: expected at least 16 characters"):
            read_token(tmp_path / "token")


@pytest.mark.parametrize(
    ("text", "place", "local"),
    [
        ("0.0.0.0:8000", ListenAddress("0.0.0.0", 8000), False),
        ("127.0.0.1", ListenAddress("127.0.0.1", 8000), True),
        ("localhost:0", ListenAddress("localhost", 0), True),
        ("[::1]:9", ListenAddress("::1", 9), True),
        ("192.0.2.7:8000", ListenAddress("192.0.2.7", 8000), False),
    ],
)
def test_a_place_is_a_host_and_a_port(text: str, place: ListenAddress, local: bool) -> None:
    assert (ListenAddress.parse(text), ListenAddress.parse(text).is_local) == (place, local)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--serve", "--help"], 0, "Example: python -m tierserver --serve 0.0.0.0:8000 --token-file token"),
        (["--serve", "0.0.0.0:8000"], 2, "is open to other machines and needs --token-file FILE"),
        (["--serve", "nonsense:x"], 2, "'nonsense:x' is not HOST:PORT"),
    ],
)
def test_the_command_says_how_it_is_called(
    arguments: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["tierserver", *arguments])
    with pytest.raises(SystemExit) as ended:
        serve_main()
    output = capsys.readouterr()
    assert ended.value.code == code and words in " ".join((output.out + output.err).split())


@pytest.mark.parametrize("text", [":8000", "host:port", "host:70000", "host:-1", "host:²"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not HOST:PORT"):
        ListenAddress.parse(text)


def test_a_message_of_the_control_port_changes_only_with_its_protocol_number() -> None:
    """A tier server of other messages must be told apart before anything is measured."""
    from tierserver import messages

    shapes = {
        name: [(item, str(kind)) for item, kind in value.__annotations__.items()]
        for name, value in sorted(vars(messages).items())
        if isinstance(value, type) and issubclass(value, messages.Message) and value.__module__ == messages.__name__
    }
    digest = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
    assert (CONTROL_PROTOCOL, digest[:16]) == (2, "3b39528241cac6d2"), (
        "raise CONTROL_PROTOCOL, and write the new digest here"
    )
