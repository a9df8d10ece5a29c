"""Telling a live owner from a dead one, and from a new process with its id."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from runner.launchers.owner import Owner, command_line, start_of


def test_this_process_is_alive_and_survives_the_round_trip() -> None:
    owner = Owner.current()
    assert owner.is_alive and owner.pid == os.getpid()
    assert Owner.parse(str(owner)) == owner


def test_another_start_time_is_another_process() -> None:
    assert not replace(Owner.current(), start="1").is_alive


def test_a_process_of_another_host_is_not_known_to_live() -> None:
    elsewhere = replace(Owner.current(), host="0123456789abcdef")
    assert elsewhere.is_elsewhere and not elsewhere.is_alive


def test_an_ended_process_has_no_start() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert start_of(process.pid) is not None
        assert "input()" in command_line(process.pid)
        process.kill()
    assert start_of(process.pid) is None
    assert command_line(process.pid) == ""


@pytest.mark.parametrize("text", ["", "host", "host:1", "host:x:1", ":1:2"])
def test_other_texts_name_no_owner(text: str) -> None:
    assert Owner.parse(text) is None
