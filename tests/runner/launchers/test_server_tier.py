"""Tiers on a tier server that runs: fresh for each launch, gone with its runner, clear when it is not there."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.errors import ChangedFilesError, LaunchError, TierCallError
from runner.launchers import server_tier
from runner.launchers.base import Mount, TierLimits
from runner.launchers.server_tier import ServerTier, TierServer, connect
from tests.catalog_of_one import declare
from tierserver.encoding import write_tensors
from tierserver.messages import CONTROL_PROTOCOL, Digest, Load, Measure, PartSpec, Postprocess, Preprocess, StatsResult

LIMITS = TierLimits("mobile", 1.0, 256 << 20, 1)
TOKEN = "a token-of-a-test".replace(" ", "-")


@dataclass
class Serving:
    """A tier server in a process of its own, which can be killed and started again on its ports."""

    folder: Path
    data_port: int = 0
    port: int = 0
    process: subprocess.Popen[str] | None = field(default=None)

    def start(self) -> "Serving":
        (self.folder / "token").write_text(TOKEN)
        (self.folder / "token").chmod(0o600)
        command = [sys.executable, "-m", "tierserver", "--serve", f"127.0.0.1:{self.port}"]
        command += ["--token-file", str(self.folder / "token"), "--cache", str(self.folder / "cache")]
        command += ["--data-port", str(self.data_port)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        self.port = int(line.split("port ")[1].split(" ")[0])
        return self

    def stop(self) -> None:
        assert self.process is not None and self.process.stderr is not None
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, tier: str = "mobile") -> TierServer:
        return connect(self.url, tier=tier, token=TOKEN)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("server")
    serving = Serving(folder).start()
    yield serving
    serving.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def pid_of(tier: Any) -> int:
    return StatsResult.from_json(tier.call({"cmd": "stats"}, deadline_s=10)).pid


def mount(name: str, **files: Path) -> Mount:
    digests = {inside: hashlib.sha256(path.read_bytes()).hexdigest() for inside, path in files.items()}
    return Mount(name, files, "key", digests, has_parts=name == "model")


def test_a_model_is_measured_there_as_anywhere_else(serving: Serving, tmp_path: Path) -> None:
    declare(tmp_path)
    (tmp_path / "row").write_bytes(write_tensors([np.ones((1, 8), np.float32)]))
    mounts = [mount("model", **{"net.onnx": tmp_path / "table.onnx"}), mount("inputs", **{"a b.png": tmp_path / "row"})]
    with serving.connect().launch(LIMITS, mounts) as tier:
        assert tier.url.startswith("http://127.0.0.1:") and tier.name == "mobile"
        path = f"{tier.path('model')}/net.onnx"
        read = tier.call(Digest((path, "/etc/passwd", "model/../inputs/a b.png")).to_json(), deadline_s=10)
        assert read["sha256"] == {path: mounts[0].sha256["net.onnx"]}
        part = PartSpec("net", path, preprocess=Preprocess(kind="tensors"), postprocess=Postprocess("tensors"))
        assert tier.call(Load((part,)).to_json(), deadline_s=20)["model_sha256"]["net"] == mounts[0].sha256["net.onnx"]
        samples: list[Any] = []
        command = Measure("net", tier.path("inputs"), ("a b.png",), repetitions=3)
        done = tier.call(command.to_json(), on_event=samples.append, deadline_s=20)
        assert done["samples"] == len(samples) == 3
        for stolen in ("/etc/passwd", "model/nothing", "inputs/../model/net.onnx"):
            with pytest.raises(TierCallError, match=r"this launch has no file"):
                tier.call(Load((PartSpec("net", stolen),)).to_json(), deadline_s=10)
        with pytest.raises(TierCallError, match=r"this launch has no file"):
            tier.call(Measure("net", "/etc", ("passwd",)).to_json(), deadline_s=10)
        stats = tier.call({"cmd": "stats"}, deadline_s=10)
        assert stats["cgroup"] is None and stats["memory"] is None


def test_each_launch_is_a_fresh_process_and_nobody_elses(serving: Serving) -> None:
    server = serving.connect()
    with server.launch(LIMITS, ()) as tier:
        first = pid_of(tier)
        refused = pytest.raises(LaunchError, match=r"in use by .*process \d+, since \d+ s")
        with refused, serving.connect().launch(LIMITS, ()):
            pass
        os.kill(first, signal.SIGKILL)
        with pytest.raises(TierCallError, match=r"TierDied: killed by SIGKILL"):
            tier.call({"cmd": "stats"}, deadline_s=10)
    with server.launch(LIMITS, ()) as tier:
        second = pid_of(tier)
    assert first != second and gone_within(second, 5)


def test_a_reservation_outlasts_the_pauses_between_launches(serving: Serving) -> None:
    first, second = serving.connect(), serving.connect()
    first.hold()
    first.hold()
    first.release()
    with pytest.raises(LaunchError, match=r"in use by"):
        second.hold()
    first.release()
    second.hold()
    second.release()


def test_a_runner_that_dies_takes_its_tier_along(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TierServer, "release", lambda self: None)  # the dead say nothing
    dead = serving.connect()
    with contextlib.suppress(TierCallError), dead.launch(LIMITS, ()) as tier:
        pid = pid_of(tier)
        tier._answer.socket.shutdown(socket.SHUT_RDWR)
        assert gone_within(pid, 5)
    monkeypatch.undo()
    dead.release()


def test_a_server_that_is_restarted_or_falls_silent_ends_its_launch(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving.connect()
    with server.launch(LIMITS, ()) as tier:
        pid = pid_of(tier)
        serving.stop()
        with pytest.raises(TierCallError, match=r"TierDied: .*(does not answer|ended it, or was ended itself)"):
            tier.call({"cmd": "stats"}, deadline_s=10)
        assert gone_within(pid, 5)
        with pytest.raises(LaunchError, match=r"does not answer .*refused.*; is `python -m tierserver --serve"):
            serving.connect()
        serving.start()
    with server.launch(LIMITS, ()) as tier:
        assert pid_of(tier) != pid and serving.process is not None
        monkeypatch.setattr(server_tier, "LEASE_S", 0.5)
        serving.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(
                TierCallError, match=r"TierDied: tier 'mobile': http.* does not answer .no answer in time"
            ):
                tier.call({"cmd": "stats"}, deadline_s=20)
        finally:
            serving.process.send_signal(signal.SIGCONT)


def test_files_that_changed_on_either_side_are_noticed_and_sent_again(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(os.urandom(1000))
    inputs = mount("inputs", a=file)
    server = serving.connect()
    with pytest.raises(ChangedFilesError), server.launch(LIMITS, [inputs]):
        (stored,) = (serving.folder / "cache/files").glob(inputs.sha256["a"])
        raise ChangedFilesError("the tier reads other bytes", "inputs")
    assert not stored.exists()
    server.hold()
    server.put([inputs])
    assert stored.read_bytes() == file.read_bytes()
    stored.unlink()
    file.write_bytes(b"other")
    with pytest.raises(ChangedFilesError, match=r"a.bin of inputs key… has changed on this disk"):
        server.put([inputs])
    server.release()


@contextlib.contextmanager
def answering(status: int, body: bytes, *, then: threading.Event | None = None, **headers: str) -> Iterator[str]:
    """Something else that speaks HTTP; after its answer it may be silent."""

    class Stranger(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.do_GET()
            self.wfile.flush()
            if then is not None:
                then.wait(20)

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_connection_that_is_open_at_one_end_only_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_tier, "LEASE_S", 0.3)
    over = threading.Event()
    with answering(200, b"", then=over, tierwise_control="1") as url:
        server = TierServer(url, tier="edge", token="", address=None)
        tier = ServerTier(server, "edge", server._open("POST", "/control/launch", {}))
        with pytest.raises(
            LaunchError, match=r"did not get ready: http.* has been silent for 0 s: its host or network is"
        ):
            tier.wait_ready()
        tier.close()
        over.set()


OTHER = json.dumps({"protocol": 99, "version": "9.9", "new": True}).encode()


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (
            OTHER,
            {"tierwise_control": "99"},
            f"runs tierserver 9.9 with control protocol 99, this runner speaks {CONTROL_PROTOCOL}: install",
        ),
        (
            b'{"protocol": %d}' % CONTROL_PROTOCOL,
            {"tierwise_control": str(CONTROL_PROTOCOL)},
            "does not describe itself as a tier server does",
        ),
        (b"<html>", {"tierwise_control": str(CONTROL_PROTOCOL)}, "broke off its answer"),
        (b"<html>", {}, "is not a tier server: it answered 200; is it the control port"),
    ],
)
def test_what_is_no_tier_server_of_this_version_is_refused(body: bytes, headers: dict[str, str], message: str) -> None:
    with answering(200, body, **headers) as url, pytest.raises(LaunchError, match=message) as refused:
        connect(url, tier="edge")
    assert str(refused.value).startswith("tier 'edge': ") and refused.value.tier == "edge"


@pytest.mark.parametrize(
    "url", ["ssh://pi@board", "http://", "http://a:b:c", "http://board/path", "http://u@board", "https://b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(LaunchError, match=r"is not the address of a tier server; expected: http://HOST:PORT"):
        connect(url, tier="edge")


def test_a_wrong_token_says_where_the_right_one_belongs(serving: Serving) -> None:
    with pytest.raises(
        LaunchError, match=r"refuses the token; put that of its --token-file into .*TIERWISE_TIER_TOKEN"
    ):
        connect(serving.url, tier="mobile", token="another-token-of-a-test")


def test_a_data_port_in_use_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        serving = Serving(tmp_path, data_port=taken.getsockname()[1]).start()
        try:
            refused = pytest.raises(LaunchError, match=r"did not get ready: ended with exit code 1.*cannot listen on")
            with refused, serving.connect().launch(LIMITS, ()):
                pass
        finally:
            serving.stop()


def test_attacks_on_the_control_port_neither_end_a_launch_nor_fill_the_memory(serving: Serving) -> None:
    assert serving.process is not None
    resident = Path(f"/proc/{serving.process.pid}/statm")
    with serving.connect().launch(LIMITS, ()) as tier, contextlib.ExitStack() as stack:
        pid, before = pid_of(tier), int(resident.read_text().split()[1])
        attacks = [
            b"GET /control HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000,
            b"POST /control/launch HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n" + b"{" * 10_000,
            b"GET /control HTTP/1.1\r\nAuthor",
            b"\x16\x03\x01" + os.urandom(500),
            b"PUT /control/files/../../x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
            b"",
        ]
        for number in range(600):
            with contextlib.suppress(OSError):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), timeout=20))
                connection.sendall(attacks[number % len(attacks)])
        assert pid_of(tier) == pid
        assert (int(resident.read_text().split()[1]) - before) * 4096 < 32 << 20
