"""The service as a process: both ways to start it, a clean stop, and what its own OpenAPI document promises."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from typer.testing import CliRunner

from recommender.__main__ import _example_subject, cli, command_line, main
from recommender.evidence.snapshots import Snapshots
from tests.recommender.forked_service import start

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-m", *command], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until_it_listens(port, lambda: process.poll() is None)
        yield process
    finally:
        process.kill()
        process.communicate()


def until_it_listens(port: int, runs: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and runs():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)


def checked(exit_code: int | None, said: str) -> str:
    assert exit_code in (0, -signal.SIGINT, 128 + signal.SIGINT), said
    assert "Traceback" not in said
    return said


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    return checked(process.returncode, said)


def test_the_factory_on_every_address_answers_this_machine_alone_and_stops_cleanly(path: Path, filled: object) -> None:
    """What `recommender --host 0.0.0.0` refuses at its start shows here only when somebody asks."""
    port = free_port()
    command = ["uvicorn", "--factory", "recommender.app:create_app", "--host", "0.0.0.0", "--port", str(port)]
    with running(command, port, {"TIERWISE_DATABASE": str(path)}) as process:
        answer = httpx.post(f"http://127.0.0.1:{port}/recommend", json={"subject": "net"}, timeout=60).json()
        assert answer["recommendation"]["operator"] == "quantized"
        own = next(iter(_addresses()), None)
        refused = None if own is None else httpx.get(f"http://{own}:{port}/subjects", timeout=60)
        stop(process)
    if refused is None:
        pytest.skip("this machine has no address beyond loopback")
    assert refused.status_code == 403 and refused.json()["title"] == "No API key protects this service"


def _addresses() -> list[str]:
    """Return this machine's addresses beyond loopback; a datagram socket that connects sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        address: str = probe.getsockname()[0]
    return [] if address.startswith("127.") else [address]


def test_the_evidence_read_at_the_start_is_what_the_first_question_is_answered_from(path: Path, filled: object) -> None:
    snapshots = Snapshots(str(path))
    assert _example_subject(snapshots) == "net"
    assert snapshots.unchanged() is not None
    snapshots.close()


def test_taken_port_and_missing_database_are_one_clear_line(
    path: Path, filled: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["recommender", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 1 and "Traceback" not in said.err and said.out == ""
        return said.err

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = str(holder.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{taken}" in refusal("--port", taken, "--database", str(path))
    assert "runner fill-catalog" in refusal("--port", "0", "--database", str(tmp_path / "none.db"))


def test_help_has_an_example_and_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = CliRunner()
    with pytest.raises(SystemExit):
        command_line()(["--help"])
    said = capsys.readouterr().out
    assert "recommender --port 8080" in said and "<bool>" not in said
    assert terminal.invoke(cli, ["--port", "99999999"]).exit_code == 2
    assert terminal.invoke(cli, ["--nonsense"]).exit_code == 2


@pytest.mark.filterwarnings("default")
def test_responses_are_what_the_openapi_document_promises_at_the_announced_address(path: Path, filled: object) -> None:
    port = free_port()
    service = start(["--port", str(port), "--database", str(path)], {})
    try:
        until_it_listens(port, lambda: service.exit_code is None)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).json()["status"] == "ok"
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        for documented in schema.get_all_operations():
            check(documented.ok())
        service.send(signal.SIGINT)
        exit_code = service.wait(10)
        said = checked(exit_code, service.stderr.read() if exit_code is not None else "it does not end")
    finally:
        service.end()
    assert f"http://127.0.0.1:{port}" in said
    question = json.loads(said.split("-d '")[1].split("'")[0])
    assert question["subject"] == "net"


def check(operation: Any) -> None:
    """Call one operation with what its own document allows, and with what it does not."""

    @given(case=operation.as_strategy())
    @settings(
        max_examples=20,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    holds()
