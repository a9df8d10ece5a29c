"""Telling a live owner from a dead one, and from a new process with its id."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from runner.launchers.docker import _is_abandoned
from runner.workdir import Owner, command_line, is_abandoned, owned_name, start_of


def test_this_process_is_alive_and_survives_the_round_trip() -> None:
    owner = Owner.current()
    assert owner.is_alive and owner.pid == os.getpid()
    assert Owner.parse(str(owner)) == owner


def test_another_start_time_is_another_process() -> None:
    assert not replace(Owner.current(), start="1").is_alive


def test_a_process_of_another_host_is_not_known_to_live() -> None:
    elsewhere = replace(Owner.current(), host="0123456789abcdef")
    assert elsewhere.is_elsewhere and not elsewhere.is_alive and not elsewhere.is_dead


def test_an_ended_process_has_no_start() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert start_of(process.pid) is not None
        assert "input()" in command_line(process.pid)
        process.kill()
    assert start_of(process.pid) is None
    assert command_line(process.pid) == ""


@pytest.mark.parametrize(
    "text", ["", "host", "host:1", "host:x:1", ":1:2", "host:²:1", "host:١:1", "host:0:1", "host:-1:1", "host:1_0:1"]
)
def test_other_texts_name_no_owner(text: str) -> None:
    assert Owner.parse(text) is None


@pytest.mark.parametrize("created", ["yesterday", "²", "nan", "9" * 5000, ""])
def test_an_object_with_any_label_of_its_time_can_be_judged(created: str) -> None:
    elsewhere = replace(Owner.current(), host="0123456789abcdef")
    assert _is_abandoned({"Labels": {"tierwise.owner": str(elsewhere), "tierwise.created": created}})


def test_a_name_on_disk_says_whose_it_is() -> None:
    mine = owned_name("building-")
    assert not is_abandoned(mine, "building-")
    owner = replace(Owner.current(), start="1")
    assert is_abandoned(f"building-{owner}-0123abcd", "building-")
    elsewhere = replace(owner, host="0123456789abcdef")
    assert not is_abandoned(f"building-{elsewhere}-0123abcd", "building-")
    assert not is_abandoned("building-by-hand", "building-")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_process_of_a_container_on_this_host_is_not_known_to_be_dead() -> None:
    """Its process id counts in another namespace, where this host's process of that number says nothing about it."""
    script = "from runner.workdir import Owner; print(Owner.current())"
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", sys.executable, "-c", script]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        pytest.skip(f"no namespaces here: {child.stderr.strip()}")
    owner = Owner.parse(child.stdout.strip())
    assert owner is not None and owner.is_elsewhere and not owner.is_dead
