"""Processes for foreign models: forked from one server, each on its own, and none outlives the runner."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.model_process import ModelProcess, NoAnswerInTimeError, call


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_calls_are_answered_by_processes_of_one_server() -> None:
    first, second = (call("os:getpid", (), deadline_s=60).answer for _ in range(2))
    assert first != second and os.getpid() not in (first, second)
    servers = {call("os:getppid", (), deadline_s=60).answer for _ in range(2)}
    (server,) = servers
    assert parent_of(server) == os.getpid()


@pytest.mark.parametrize(
    ("function", "arguments", "exit_code", "ending", "stderr"),
    [
        ("os:abort", (), -6, "signal 6, SIGABRT", ""),
        ("os:_exit", (3,), 3, "exit code 3", ""),
        ("os:strerror", ("many",), 1, "exit code 1", "TypeError"),
        ("os:no_such_function", (), 1, "exit code 1", "no_such_function"),
        ("runner.no_such_module:show", (), 1, "exit code 1", "no_such_module"),
        ("os:getcwdb", (), 1, "exit code 1", "not JSON serializable"),
    ],
)
def test_a_process_that_gives_no_answer_says_how_it_ended(
    function: str, arguments: tuple[object, ...], exit_code: int, ending: str, stderr: str
) -> None:
    process = call(function, arguments, deadline_s=60)
    assert process.answer is None and (process.exit_code, process.ending) == (exit_code, ending)
    assert stderr in process.stderr


def test_what_a_process_prints_is_no_answer() -> None:
    assert call("subprocess:call", (["echo", "printed"],), deadline_s=60) == ModelProcess(0, 0, "printed\n")


def test_long_arguments_and_answers_arrive_whole() -> None:
    text = "ä" * 200_000
    assert call("os:fsdecode", (text,), deadline_s=60).answer == text


def test_a_call_that_takes_too_long_is_killed_and_the_next_one_works() -> None:
    server = call("os:getppid", (), deadline_s=60).answer
    with pytest.raises(NoAnswerInTimeError):
        call("time:sleep", (60,), deadline_s=0.2)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert call("os:getppid", (), deadline_s=60).answer != server


def test_a_server_that_ended_meanwhile_is_started_again() -> None:
    server = call("os:getppid", (), deadline_s=60).answer
    os.kill(server, 9)
    deadline = time.monotonic() + 10
    # Its entry among the processes goes at once, and not with the next call.
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert call("os:getppid", (), deadline_s=60).answer not in (server, None)


def test_neither_server_nor_call_outlives_a_killed_runner(tmp_path: Path) -> None:
    script = (
        "import threading\nfrom runner.model_process import call\n"
        "print(call('os:getppid', (), deadline_s=60).answer, flush=True)\n"
        f"call('os:mkfifo', ({str(tmp_path / 'fifo')!r},), deadline_s=60)\n"
        f"call('os:open', ({str(tmp_path / 'fifo')!r}, 0), deadline_s=60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        server = int(runner.stdout.readline())
        children = Path(f"/proc/{server}/task/{server}/children")
        deadline = time.monotonic() + 20
        while not ((tmp_path / "fifo").exists() and (called := children.read_text().split())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        runner.kill()
    while any(Path(f"/proc/{pid}").exists() for pid in (server, *called)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
