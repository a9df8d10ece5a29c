"""Commands with DOCKER_HOST: what they say and plan is about the machine behind it.

The engine on another machine is the real one behind a proxy that changes what it says of its host; its containers see
another /proc/cpuinfo. Everything else passes through, as far as whole answers go (nothing is attached here).
"""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.cli import app, run
from runner.host import this_host
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import Engine

ENGINE = "/var/run/docker.sock"


class _LocalConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(ENGINE)


@contextmanager
def engine_elsewhere(cpuinfo: Path, info: Mapping[str, Any]) -> Iterator[str]:
    """Yield the proxy's address for DOCKER_HOST; `cpuinfo` is what containers see, `info` what the engine says."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.split("?")[0].endswith("/containers/create"):
                body = _with_cpuinfo(body, cpuinfo)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}
            upstream = _LocalConnection("localhost")
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if re.search(r"/info$", self.path):
                content = json.dumps({**json.loads(content), **info}).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            if answer.status not in (204, 304):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _with_cpuinfo(body: bytes, cpuinfo: Path) -> bytes:
    """Cover /proc/cpuinfo, the one file of /proc that the runtime allows, as LXCFS does."""
    created = json.loads(body)
    host = created.setdefault("HostConfig", {})
    host["Binds"] = [*(host.get("Binds") or []), f"{cpuinfo}:/proc/cpuinfo:ro"]
    return json.dumps(created).encode()


CATALOG = """\
version: 1
subjects: {s: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}
operators: {quantized: [static_ptq: {calibration_samples: 8}]}
tiers: {edge: {cpus: 1, memory: 512m}}
strategies: [{operators: [quantized], placements: [edge]}]
experiment: {inputs: 2, rounds: 1}
"""
# A CPU that no machine under test has, without int8 multiplication; the other has it.
OLD_CPU = "processor\t: 0\nmodel name\t: Tierwise Test CPU 1\nflags\t\t: fpu sse2 avx avx2\n"
NEW_CPU = "processor\t: 0\nmodel name\t: Tierwise Test CPU 2\nflags\t\t: fpu sse2 avx avx2 avx512_vnni\n"


@pytest.mark.docker
@pytest.mark.parametrize(
    ("cpuinfo", "model", "vnni"), [(OLD_CPU, "CPU 1", "no"), (NEW_CPU, "CPU 2", "yes")], ids=["without", "with-vnni"]
)
def test_commands_speak_of_the_machine_behind_docker_host(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cpuinfo: str,
    model: str,
    vnni: str,
) -> None:
    DockerLauncher(Engine.connect()).prepare()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strategies.yaml").write_text(CATALOG)
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    ours = planned(capsys)
    with engine_elsewhere(file, {"ID": model, "Name": "far", "NCPU": 48}) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        theirs = planned(capsys)
        assert run(lambda: app(["doctor", "--json"])) == 0
    host = {row["what"]: row["found"] for row in json.loads(capsys.readouterr().out)}
    assert host["machine of the tiers"].startswith("the host of Docker")
    assert host["CPUs"] == f"48 × Tierwise Test {model}" and host["int8 (VNNI)"] == vnni
    assert ours["conditions"]["host"] == this_host().fingerprint
    assert theirs["conditions"]["host"] != ours["conditions"]["host"]
    assert theirs["latency_key"] != ours["latency_key"]


def planned(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the first missing round of `runner plan`."""
    assert run(lambda: app(["plan", "--launcher", "docker", "--json"])) == 0
    first: dict[str, Any] = json.loads(capsys.readouterr().out)["missing_rounds"][0]
    return first
