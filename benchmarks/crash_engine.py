"""A Docker engine of the benchmark's own, beside the machine's: `benchmarks.crash` kills it and counts what it holds.

It runs in a network and a mount namespace of its own, so that its bridges, packet filter rules and mounts are not those
of the other engine, and its containers' control groups have a parent of their own. containerd is a service beside it,
as distributions set it up. Needs Linux, root, `dockerd` and `containerd`.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

_COMES_UP_S = 120.0
_KEPT_NETWORKS = {"bridge", "host", "none"}
_KEPT_DEVICES = {"lo", "docker0"}
_CGROUPS = Path("/sys/fs/cgroup")
_ENDS_S = 10.0
_ID = re.compile(r"[0-9a-f]{64}")
_CONTAINERD = """\
version = 2
root = "{directory}/containerd/root"
state = "{directory}/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{directory}/containerd.sock"
"""
# Holds the namespaces, and lets go of the other engine's mounts: kept, they would outlive that engine's containers.
_HOLDER = "awk '$2 ~ /docker/ {print $2}' /proc/self/mounts | xargs -r umount -l 2>/dev/null; exec sleep infinity"


class PrivateEngine:
    """dockerd with everything it owns below one directory.

    The directory's path is short: the paths of sockets in it, 44 characters longer, may have 107.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._parent = f"tierwise-{directory.parent.name}"
        self._socket = directory / "engine.sock"
        self.url = f"unix://{self._socket}"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _HOLDER], start_new_session=True
        )
        self._daemon: subprocess.Popen[bytes] | None = None
        mine, its = Path("/proc/self/ns/net"), Path(f"/proc/{self._holder.pid}/ns/net")
        while mine.readlink() == its.readlink():
            if self._holder.poll() is not None:
                raise SystemExit("no namespaces here: a private Docker engine needs Linux and root")
            time.sleep(0.01)
        config = directory / "containerd.toml"
        config.write_text(_CONTAINERD.format(directory=directory))
        self._containerd = self._run(["containerd", "--config", str(config)])

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = ["dockerd", "--host", self.url, "--pidfile", str(self._directory / "engine.pid")]
        command += ["--data-root", str(self._directory / "data"), "--exec-root", str(self._directory / "exec")]
        command += ["--cgroup-parent", f"/{self._parent}", "--containerd", str(self._directory / "containerd.sock")]
        self._daemon = self._run(command)
        deadline = time.monotonic() + _COMES_UP_S
        while not self._answers():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                tail = (self._directory / "log").read_text()[-2000:]
                raise SystemExit(f"the private Docker engine did not come up:\n{tail}")
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to dockerd, as a crash would end it; its containers and their shims are none of its children."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()

    def stop(self) -> None:
        """End it in order, then everything that still runs in its namespaces or comes from its directory."""
        if self._daemon is not None:
            self._daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._daemon.wait(30)
        for pid in (*self._processes(), self._containerd.pid, self._holder.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._containerd.wait()
        self._holder.wait()
        self._remove_groups()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _remove_groups(self) -> None:
        deadline = time.monotonic() + _ENDS_S
        while time.monotonic() < deadline:
            groups = self._groups(f"{self._parent}/*") + self._groups(self._parent)
            for group in groups:
                with contextlib.suppress(OSError):  # its processes are still ending
                    group.rmdir()
            if not groups:
                break
            time.sleep(0.1)

    def running_tiers(self) -> list[str]:
        """Names of the tiers' containers; helpers that shape and fill are no tiers."""
        with self._client() as client:
            names = [item["Names"][0].lstrip("/") for item in client.api.containers(filters={"label": "tierwise.run"})]
        return [name for name in names if not name.startswith("tierwise-shape-")]

    def kill_container(self, name: str) -> bool:
        """SIGKILL; False when it had ended already."""
        with self._client() as client:
            try:
                client.api.kill(name)
            except DockerException:
                return False
        return True

    def left_behind(self) -> list[str]:
        """Everything that no idle engine has: containers, networks, half-filled volumes, and what the kernel holds."""
        with self._client() as client:
            left = [f"container {item['Names']}" for item in client.api.containers(all=True)]
            networks = [str(item["Name"]) for item in client.api.networks()]
            volumes = {str(item["Name"]) for item in client.api.volumes()["Volumes"] or []}
        left += [f"network {name}" for name in networks if name not in _KEPT_NETWORKS]
        pairs = {name.removesuffix("-complete") for name in volumes}
        left += [f"half-filled volume {name}" for name in pairs if not {name, f"{name}-complete"} <= volumes]
        return left + self._held_by_the_kernel()

    def remove_forgotten(self) -> list[str]:
        """What an engine forgets that is killed while it makes a network or starts a container; to be called when idle.

        Bridges of no network, and shims and processes of containers that it does not list. No client can see them.
        """
        with self._client() as client:
            networks = {f"br-{item['Id'][:12]}" for item in client.api.networks()}
            containers = {str(item["Id"]) for item in client.api.containers(all=True)}
        bridges = [name for name in self._devices() if name.startswith("br-") and name not in networks]
        for name in bridges:
            self._output(["ip", "link", "delete", name])
        processes = {
            pid: description
            for pid, description in self._processes().items()
            if not containers & set(_ID.findall(description))
        }
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [f"bridge {name}" for name in bridges] + [
            f"process {description.split()[0]}" for description in processes.values()
        ]

    def volumes(self) -> list[str]:
        """What is cached."""
        with self._client() as client:
            return [str(item["Name"]) for item in client.api.volumes()["Volumes"] or []]

    def _processes(self) -> dict[int, str]:
        """Shims and whatever runs in the containers: command line and control groups, which name the container."""
        own = {self._holder.pid, self._containerd.pid, *([self._daemon.pid] if self._daemon else [])}
        descriptions = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                groups = (entry / "cgroup").read_text()
                if ("containerd-shim" in words and str(self._directory) in words) or f"/{self._parent}/" in groups:
                    descriptions[int(entry.name)] = f"{words} {groups}"
        return {pid: description for pid, description in descriptions.items() if pid not in own}

    def _held_by_the_kernel(self) -> list[str]:
        """Processes, control groups, network devices, shapers and mounts of containers."""
        left = [f"process {pid} {description[:80]}" for pid, description in self._processes().items()]
        left += [f"control group {path}" for path in self._groups(f"{self._parent}/*")]
        left += [f"device {name}" for name in self._devices() if name not in _KEPT_DEVICES]
        left += [f"shaper {line}" for line in self._output(["tc", "qdisc"]).splitlines() if " tbf " in f"{line} "]
        mounts = Path(f"/proc/{self._holder.pid}/mounts").read_text().splitlines()
        points = [line.split()[1] for line in mounts]
        mine = [point for point in points if point.startswith(str(self._directory))]
        return left + [f"mount {point}" for point in mine if point.endswith("/merged") or "/netns/" in point]

    def _devices(self) -> list[str]:
        lines = self._output(["ip", "-o", "link"]).splitlines()
        return [line.split()[1].rstrip(":").partition("@")[0] for line in lines]

    def _groups(self, pattern: str) -> list[Path]:
        hierarchies = (_CGROUPS, *_CGROUPS.iterdir())
        return [path for root in hierarchies for path in root.glob(pattern) if path.is_dir()]

    def _output(self, command: list[str]) -> str:
        return subprocess.run(self._inside(command), capture_output=True, text=True, check=True).stdout

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(self._inside(command), stdout=log, stderr=log, start_new_session=True)

    def _inside(self, command: list[str]) -> list[str]:
        return ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", *command]

    @contextmanager
    def _client(self) -> Iterator[docker.DockerClient]:
        """One for each question: connections do not outlive the engine."""
        client = docker.DockerClient(base_url=self.url, timeout=60)
        try:
            yield client
        finally:
            client.close()

    def _answers(self) -> bool:
        try:
            # The library leaks the file of a socket that it cannot connect.
            with socket.socket(socket.AF_UNIX) as local:
                local.connect(str(self._socket))
            with self._client() as client:
                return bool(client.ping())
        except (OSError, DockerException, requests.exceptions.RequestException):
            return False
