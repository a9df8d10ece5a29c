"""The control channel against a real process that speaks its lines."""

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runner.errors import LaunchError, TierCallError
from runner.launchers.channel import ControlChannel, Obituary

STUB = """
import json, sys, time
print(json.dumps({"event": "ready", "port": 1}), flush=True)
token = json.loads(sys.stdin.readline())["token"]
for line in sys.stdin:
    command = json.loads(line)
    assert command["token"] == token
    answer = {"id": command["id"], "ok": True, "result": {"said": command["cmd"]}}
    if command["cmd"] == "events":
        for n in range(3):
            print(json.dumps({"id": command["id"], "event": "tick", "n": n}), flush=True)
    if command["cmd"] == "fail":
        answer = {"id": command["id"], "ok": False, "error": {"type": "EngineError", "message": "no model"}}
    if command["cmd"] == "slow":
        time.sleep(0.3)
    if command["cmd"] == "garbage":
        print("not json", flush=True)
    if command["cmd"] == "die":
        sys.exit(3)
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[ControlChannel]:
    script = tmp_path / "stub.py"
    script.write_text(STUB)
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        stdin = process.stdin

        def send(line: bytes) -> None:
            stdin.write(line)
            stdin.flush()

        yield ControlChannel(
            "edge", lines=process.stdout, send=send, obituary=lambda: Obituary("ended", "first\nlast words\n")
        )
        process.kill()
        with suppress(OSError):  # what a dead process did not read
            stdin.close()


def call(channel: ControlChannel, name: str, deadline_s: float = 5.0) -> dict[str, Any]:
    return channel.call({"cmd": name}, on_event=None, deadline_s=deadline_s)


def test_ready_then_answers_in_order(channel: ControlChannel) -> None:
    assert channel.wait_ready(deadline_s=5)["port"] == 1
    assert [call(channel, name)["said"] for name in ("a", "b")] == ["a", "b"]


def test_a_tier_that_dies_after_its_ready_line_did_not_get_ready() -> None:
    def send(line: bytes) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    ready = io.BytesIO(b'{"event": "ready", "port": 1}\n')
    channel = ControlChannel("edge", lines=ready, send=send, obituary=lambda: Obituary("ended", "last words\n"))
    with pytest.raises(LaunchError, match="did not get ready") as refused:
        channel.wait_ready(deadline_s=5)
    assert refused.value.log_tail == "last words\n"


def test_events_come_before_the_result(channel: ControlChannel) -> None:
    channel.wait_ready(deadline_s=5)
    seen: list[int] = []
    result = channel.call({"cmd": "events"}, on_event=lambda event: seen.append(event["n"]), deadline_s=5)
    assert (seen, result) == ([0, 1, 2], {"said": "events"})


def test_an_error_answer_carries_its_type_and_leaves_the_channel_usable(channel: ControlChannel) -> None:
    channel.wait_ready(deadline_s=5)
    with pytest.raises(TierCallError, match="tier 'edge': EngineError: no model") as caught:
        call(channel, "fail")
    assert (caught.value.tier, caught.value.type, caught.value.message) == ("edge", "EngineError", "no model")
    assert call(channel, "next") == {"said": "next"}


def test_a_late_answer_is_not_taken_for_the_next_one(channel: ControlChannel) -> None:
    channel.wait_ready(deadline_s=5)
    with pytest.raises(TierCallError) as caught:
        call(channel, "slow", deadline_s=0.05)
    assert caught.value.type == "DeadlineExceeded"
    assert call(channel, "next") == {"said": "next"}


@pytest.mark.parametrize("command", ["die", "garbage"])
def test_a_dead_tier_is_reported_with_its_reason_and_log(channel: ControlChannel, command: str) -> None:
    channel.wait_ready(deadline_s=5)
    for _ in range(2):
        with pytest.raises(TierCallError, match="TierDied: ended") as caught:
            call(channel, command)
        assert caught.value.log_tail == "first\nlast words\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (137, "killed by SIGKILL"),
        (1, "ended with exit code 1; last log line: b"),
        (255, "ended with exit code 255; last"),
    ],
)
def test_an_exit_status_is_put_in_words(code: int, reason: str) -> None:
    assert Obituary.of_exit(code, "a\nb\n").reason.startswith(reason)


def test_a_tier_that_is_not_ready_in_time_is_a_launch_error(channel: ControlChannel) -> None:
    channel.wait_ready(deadline_s=5)
    with pytest.raises(LaunchError, match="did not get ready: no answer in time"):
        channel.wait_ready(deadline_s=0.01)
