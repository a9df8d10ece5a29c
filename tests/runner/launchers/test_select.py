"""Which launcher is taken, and what is said about it."""

from pathlib import Path

import pytest

from runner.errors import EngineUnavailableError, RunnerError
from runner.launchers.select import select_launcher


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")


def test_process_is_taken_when_asked_for() -> None:
    selection = select_launcher("process")
    assert (selection.launcher.name, selection.reason) == ("process", "requested")


@pytest.mark.usefixtures("no_engine")
def test_auto_without_an_engine_takes_process_and_says_why() -> None:
    selection = select_launcher("auto")
    assert selection.launcher.name == "process"
    assert "no Docker engine answers" in selection.reason and "No such file" in selection.reason


@pytest.mark.usefixtures("no_engine")
def test_docker_without_an_engine_is_an_error() -> None:
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        select_launcher("docker")


def test_an_unknown_launcher_is_refused_with_what_there_is() -> None:
    with pytest.raises(RunnerError, match="unknown launcher 'podman'; there are: auto, docker, process"):
        select_launcher("podman")


@pytest.mark.docker
def test_auto_with_an_engine_takes_docker_and_names_it() -> None:
    selection = select_launcher("auto")
    assert selection.launcher.name == "docker"
    assert selection.reason.startswith("an engine answers: Docker ")
    assert selection.launcher.describe().cpus > 0
