"""A Docker engine of the benchmark's own, beside the machine's: `benchmarks.crash` kills it and counts what it holds.

It runs in a network and a mount namespace of its own, so that its bridges, packet filter rules and mounts are not those
of the other engine, and its containers' control groups have a parent of their own. Needs Linux, root and `dockerd`.
"""

import contextlib
import os
import shutil
import signal
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
# Holds the namespaces, and lets go of the other engine's mounts: kept, they would outlive that engine's containers.
_HOLDER = "awk '$2 ~ /docker/ {print $2}' /proc/self/mounts | xargs -r umount -l 2>/dev/null; exec sleep infinity"


class PrivateEngine:
    """dockerd with everything it owns below one directory."""

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

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = ["dockerd", "--host", self.url, "--pidfile", str(self._directory / "engine.pid")]
        command += ["--data-root", str(self._directory / "data"), "--exec-root", str(self._directory / "exec")]
        command += ["--cgroup-parent", f"/{self._parent}"]
        with (self._directory / "log").open("ab") as log:
            self._daemon = subprocess.Popen(self._inside(command), stdout=log, stderr=log, start_new_session=True)
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
        # containerd dies with it. Until the system has taken note, the next dockerd would believe that it still runs.
        (self._directory / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End it in order, then everything that still runs in its namespaces or comes from its directory."""
        if self._daemon is not None:
            self._daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._daemon.wait(30)
        for pid in (*self.processes(), self._holder.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
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

    def remove_lost_bridges(self) -> int:
        """Bridges without a network: an engine that is killed while it makes a network forgets the device.

        To be called when nobody makes networks. No client of the engine can see them, nor remove them.
        """
        with self._client() as client:
            known = {f"br-{item['Id'][:12]}" for item in client.api.networks()}
        lost = [name for name in self._devices() if name.startswith("br-") and name not in known]
        for name in lost:
            self._output(["ip", "link", "delete", name])
        return len(lost)

    def volumes(self) -> list[str]:
        """What is cached."""
        with self._client() as client:
            return [str(item["Name"]) for item in client.api.volumes()["Volumes"] or []]

    def processes(self) -> list[int]:
        """Shims and whatever runs in the containers, by command line and control group."""
        mine = {self._holder.pid, *([self._daemon.pid] if self._daemon else [])}
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                shim = "containerd-shim" in words and str(self._directory) in words
                if shim or f"/{self._parent}/" in (entry / "cgroup").read_text():
                    found.append(int(entry.name))
        return [pid for pid in found if pid not in mine]

    def _held_by_the_kernel(self) -> list[str]:
        """Processes, control groups, network devices, shapers and mounts of containers."""
        left = [f"process {pid}" for pid in self.processes()]
        left += [f"control group {path}" for path in self._groups(f"{self._parent}/*")]
        left += [f"device {name}" for name in self._devices() if name not in _KEPT_DEVICES]
        left += [f"shaper {line}" for line in self._output(["tc", "qdisc"]).splitlines() if " tbf " in f"{line} "]
        mounts = Path(f"/proc/{self._holder.pid}/mounts").read_text().splitlines()
        points = [line.split()[1] for line in mounts]
        mine = [each for each in points if each.startswith(str(self._directory))]
        return left + [f"mount {each}" for each in mine if each.endswith("/merged") or "/netns/" in each]

    def _devices(self) -> list[str]:
        lines = self._output(["ip", "-o", "link"]).splitlines()
        return [line.split()[1].rstrip(":").partition("@")[0] for line in lines]

    def _groups(self, pattern: str) -> list[Path]:
        hierarchies = (_CGROUPS, *_CGROUPS.iterdir())
        return [path for root in hierarchies for path in root.glob(pattern) if path.is_dir()]

    def _output(self, command: list[str]) -> str:
        return subprocess.run(self._inside(command), capture_output=True, text=True, check=True).stdout

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
            with self._client() as client:
                return bool(client.ping())
        except (DockerException, requests.exceptions.RequestException):
            return False
