"""Which launcher is taken, and what is said about it."""

from pathlib import Path

import pytest

from catalog.declaration import TestbedSpec
from runner.errors import EngineUnavailableError, RunnerError
from runner.launchers.select import launcher_of, select_launcher


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


def test_a_testbed_on_this_machine_takes_the_launcher_that_is_chosen(tmp_path: Path) -> None:
    selection = launcher_of(TestbedSpec(engine="local"), name="emulated", base=tmp_path, launcher="process")
    assert (selection.launcher.name, selection.testbed, selection.replicas) == ("process", "emulated", None)


REFUSED = [
    ("unix:///nothing/docker.sock", "connecting to unix:///nothing/docker.sock: the Docker engine does not answer"),
    ("tcp://192.0.2.1:2376", "tcp://192.0.2.1:2376 needs TLS: name a folder with DOCKER_CERT_PATH"),
    ("no-such-context", "there is no Docker context 'no-such-context'; there are: default"),
    ("ssh://nobody@127.0.0.1:9", "no SSH server listens there: start it, or name its port"),
]


@pytest.mark.parametrize(("place", "said"), REFUSED, ids=[place for place, _ in REFUSED])
def test_an_engine_that_cannot_be_reached_is_one_sentence(
    place: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EngineUnavailableError) as caught:
        launcher_of(TestbedSpec(engine=place), name="lab", base=tmp_path)
    assert said in str(caught.value)


def test_keys_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(EngineUnavailableError, match=r"DOCKER_CERT_PATH is not usable; allowed: one with ca\.pem"):
        launcher_of(TestbedSpec(engine="tcp://192.0.2.1:2376"), name="lab", base=tmp_path)


def test_a_testbed_of_engines_has_no_processes(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="leave out --launcher process"):
        launcher_of(TestbedSpec(engine="ssh://nuc"), name="lab", base=tmp_path, launcher="process")
