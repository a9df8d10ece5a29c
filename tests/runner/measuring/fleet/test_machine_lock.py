"""One runner at a time measures on this machine, and on a Docker engine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import EngineUnavailableError, MachineBusyError, RunnerError
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import Engine
from runner.launchers.marker import NAME, engine_marker, remove_stale_marker
from runner.measuring.fleet.exclusive import machine_lock
from runner.workdir import Owner

HOLDING = """
import sys
from pathlib import Path
from runner.measuring.fleet.exclusive import machine_lock
with machine_lock(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_a_second_runner_is_refused_and_told_who_measures(tmp_path: Path) -> None:
    said = rf"another runner \(process {os.getpid()}, since .*\) measures on this machine; allowed: one at a time"
    with machine_lock(tmp_path), pytest.raises(MachineBusyError, match=said), machine_lock(tmp_path):
        pass
    with machine_lock(tmp_path):
        pass


def test_another_folder_is_another_machine(tmp_path: Path) -> None:
    with machine_lock(tmp_path / "a"), machine_lock(tmp_path / "b"):
        pass


def test_the_lock_ends_with_a_killed_runner(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(MachineBusyError, match=f"process {holder.pid},"), machine_lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    with machine_lock(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_of_its_own_is_not_locked(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "machine.lock"
    if kind == "link":
        (tmp_path / "other").touch()
        place.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(RunnerError, match=r"machine\.lock, cannot be opened .* TIERWISE_LOCKS"), machine_lock(tmp_path):
        pass


@pytest.fixture
def launcher() -> Iterator[DockerLauncher]:
    try:
        yield DockerLauncher(Engine.connect())
    except EngineUnavailableError:
        pytest.fail("no Docker engine answers")


@pytest.mark.docker
def test_an_engine_has_one_runner_and_a_mark_whose_runner_ended_is_removed(
    launcher: DockerLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, image = launcher.engine, launcher.image().tag
    said = (
        rf"another runner \(process {os.getpid()} on .*, since .*\) measures on the Docker engine .* rm --force {NAME}"
    )
    with engine_marker(engine, image=image):
        # Two testbeds of one run may name an engine by two addresses.
        twice = pytest.raises(MachineBusyError, match=r"two places lead to the Docker engine at .* Name one of them")
        with twice, engine_marker(engine, image=image):
            pass
        other = replace(Owner.current(), start="another")
        with monkeypatch.context() as patch:
            patch.setattr(Owner, "current", lambda: other)
            with pytest.raises(MachineBusyError, match=said), engine_marker(engine, image=image):
                pass
        # What `runner clean` does spares the mark of a runner that lives.
        assert not remove_stale_marker(engine)
    # A runner that was killed: its connection ends, and with it the container, as the engine sees it.
    marker = engine_marker(engine, image=image)
    marker.__enter__()
    (container,) = engine.list_containers("tierwise.marker")
    engine._api.kill(container["Id"])
    deadline = time.monotonic() + 10
    while not remove_stale_marker(engine) and time.monotonic() < deadline:
        time.sleep(0.05)
    with engine_marker(engine, image=image):
        pass
    marker.__exit__(None, None, None)
