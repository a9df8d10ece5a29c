"""An engine on another host, over a real SSH server: the tunnel, a tier behind it, and what is said when it fails."""

import gc
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.errors import EngineUnavailableError
from runner.launchers.base import TierLimits
from runner.launchers.container import OWNER_LABEL
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import Engine
from runner.launchers.marker import engine_marker
from runner.workdir import Owner, sweep

# Where Debian has it; it is in no user's PATH.
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = [pytest.mark.docker, pytest.mark.skipif(SSHD is None, reason="no SSH server is installed")]


@dataclass(frozen=True)
class SshHost:
    """This machine as a host that is reached over SSH, and the files of the client."""

    port: int
    folder: Path

    def url(self, path: str = "") -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"

    def configure(self, *, key: str = "client", hosts: str = "known") -> None:
        """Write the client's configuration."""
        (self.folder / "config").write_text(
            f"IdentityFile {self.folder / key}\nIdentitiesOnly yes\nUserKnownHostsFile {self.folder / hosts}\n"
            "GlobalKnownHostsFile none\n"
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    assert SSHD is not None
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host", "client", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(folder / key)]
        subprocess.run(command, check=True)
    shutil.copy(folder / "client.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    host_key = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "unknown").touch()
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        # Its privilege separation wants this directory, which the system's own service makes.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen([SSHD, "-D", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_listens(port)
        yield SshHost(port, folder)
    finally:
        process.kill()
        process.wait()


def _wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the SSH server did not start"
            time.sleep(0.05)


@pytest.fixture
def client(server: SshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshHost:
    """Put an `ssh` in front of the PATH that has the test's configuration instead of the user's."""
    command = tmp_path / "ssh"
    command.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {server.folder / "config"} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    server.configure()
    return server


def test_a_tier_behind_ssh_answers_and_the_tunnel_ends_with_its_engine(client: SshHost) -> None:
    engine = Engine.connect(client.url())
    assert (engine.id, engine.address) == (Engine.connect().id, client.url())
    assert not engine.is_local
    launcher = DockerLauncher(engine, place=client.url())
    with launcher.launch([TierLimits("mobile", 1.0, 256 << 20, 1)], [], {}) as deployment:
        assert deployment.tiers["mobile"].call({"cmd": "stats"}, deadline_s=20)["threads"] >= 1
    assert launcher.host().label == client.url()
    sockets = _sockets()
    assert sockets
    del launcher, engine, deployment
    gc.collect()
    assert not sockets & _sockets()


def _sockets() -> set[Path]:
    """Return the local ends of this process's tunnels."""
    return set(Path(os.environ.get("TMPDIR", "/tmp")).glob("tierwise-ssh-*/docker.sock"))


def test_a_lost_connection_is_opened_again_and_nothing_is_left_of_what_ended_with_it(client: SshHost) -> None:
    engine = Engine.connect(client.url())
    launcher, tiers = DockerLauncher(engine), [TierLimits("mobile", 1.0, 256 << 20, 1)]
    tunnel, label = engine._tunnel, f"{OWNER_LABEL}={Owner.current()}"
    assert tunnel is not None and not launcher.reconnect()
    with engine_marker(engine, image=launcher.image().tag) as ensure, launcher.kept():
        with launcher.launch(tiers, [], {}):
            assert ensure()
        (marked,) = engine.list_containers("tierwise.marker")
        with pytest.raises(EngineUnavailableError), launcher.launch(tiers, [], {}) as deployment:
            os.kill(tunnel._process.pid, signal.SIGKILL)
            deployment.tiers["mobile"].call({"cmd": "stats"}, deadline_s=20)
        # Where the engine cannot be reached, the measurement that follows says so.
        assert not ensure()
        assert launcher.reconnect()
        assert engine.list_containers(label) == []
        assert [ensure(), ensure()] == [False, True]
        (again,) = engine.list_containers("tierwise.marker")
        assert again["Id"] != marked["Id"] and again["State"] == "running"
        with launcher.launch(tiers, [], {}) as deployment:
            assert deployment.tiers["mobile"].call({"cmd": "stats"}, deadline_s=20)["threads"] >= 1
        client.configure(key="stranger")
        os.kill(tunnel._process.pid, signal.SIGKILL)
        with pytest.raises(EngineUnavailableError, match="Permission denied"):
            launcher.reconnect()
        client.configure()
        assert launcher.reconnect()
    assert engine.list_containers(label) == []
    # The library leaks sockets that it could not connect.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_the_tunnel_of_a_killed_runner_leaves_nothing(client: SshHost, tmp_path: Path) -> None:
    script = (
        "import sys; from runner.launchers.ssh_tunnel import SshTunnel\n"
        "tunnel = SshTunnel(sys.argv[1]); print(tunnel.socket.parent, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, client.url()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        left = Path(runner.stdout.readline().strip())
        sweep(tmp_path)
        assert (left / "docker.sock").exists()
        runner.kill()
    # Another runner of this machine may have swept it already.
    sweep(tmp_path)
    assert not left.exists()


def test_docker_host_may_name_ssh(client: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", client.url("/var/run/docker.sock"))
    assert Engine.connect().version


def test_what_is_wrong_with_a_host_is_one_sentence_with_what_to_do(client: SshHost) -> None:
    def refusal(path: str = "", **configuration: str) -> str:
        client.configure(**configuration)
        with pytest.raises(EngineUnavailableError) as caught:
            Engine.connect(client.url(path))
        return str(caught.value)

    assert "Permission denied" in (refused := refusal(key="stranger")) and "the key is refused: allow one" in refused
    assert "Host key verification failed" in refusal(hosts="unknown")
    assert "this user finds no Docker engine at /nothing/docker.sock; start one" in refusal("/nothing/docker.sock")
