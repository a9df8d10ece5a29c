"""Real tiers as containers: what they may do, how fast their links are, what is left of them."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.errors import ChangedFilesError, EngineUnavailableError, LaunchError, TierCallError
from runner.launchers.base import Deployment, LinkLimits, Mount, RunningTier, TierLimits
from runner.launchers.container import remove_volumes, volume_name
from runner.launchers.docker import DockerDeployment, DockerLauncher
from runner.launchers.engine import Engine
from runner.workdir import Owner

pytestmark = pytest.mark.docker

LOOK = """
import json, os
from pathlib import Path
def read(*names):
    for name in names:
        if Path(name).exists():
            return Path(name).read_text().split()
def writes(path):
    try:
        Path(path, "x").write_text("x")
    except OSError:
        return False
    return True
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
quota = read("/sys/fs/cgroup/cpu.max") or [
    *read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), *read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")]
print(json.dumps({
    "quota": [int(value) for value in quota],
    "memory": int(read("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")[0]),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "uid": os.getuid(),
    "writable": [path for path in ("/", "/opt", "/tmp") if writes(path)],
}))
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 8000), timeout=1).close()
    print("reached")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def launcher() -> DockerLauncher:
    launcher = DockerLauncher(Engine.connect())
    launcher.prepare()
    return launcher


@pytest.fixture(scope="module")
def deployment(
    launcher: DockerLauncher, tiers: list[TierLimits], links: list[LinkLimits]
) -> Iterator[DockerDeployment]:
    with launcher.launch(tiers, links, {}) as running:
        for name, tier in running.tiers.items():
            tier.call({"cmd": "load", "parts": [], "routes": running.routes(name)}, deadline_s=20)
        yield running


def inside(client: docker.DockerClient, deployment: Deployment, tier: str, script: str, *arguments: str) -> str:
    container: Any = deployment.tiers[tier]
    answer = client.containers.get(container.container).exec_run(["python", "-c", script, *arguments])
    return str(answer.output.decode().strip())


def owned_by(client: docker.DockerClient, pid: int) -> set[str]:
    """Containers and networks of one runner; others may be measuring on the same engine."""
    filters = {"label": "tierwise=1"}
    resources = [*client.api.containers(all=True, filters=filters), *client.api.networks(filters=filters)]
    return {resource["Id"] for resource in resources if f":{pid}:" in resource["Labels"]["tierwise.owner"]}


@pytest.mark.parametrize("index", [0, 1, 2])
def test_limits_are_really_set(
    client: docker.DockerClient, deployment: Deployment, tiers: list[TierLimits], index: int
) -> None:
    limits = tiers[index]
    seen = json.loads(inside(client, deployment, limits.name, LOOK))
    assert seen == {
        "quota": [int(limits.cpus * 10_000), 10_000],
        "memory": limits.memory_bytes,
        "capabilities": 0,
        "no_new_privileges": 1,
        "uid": 65534,
        "writable": ["/tmp"],
    }


def test_a_small_tier_has_its_limits_before_it_loads_anything(
    client: docker.DockerClient, launcher: DockerLauncher
) -> None:
    """Start without a quota, since imports take as many CPU seconds whatever a tier may use; have it when ready."""
    limits = TierLimits("mobile", 0.05, 256 << 20, 1)
    with launcher.launch([limits], [], {}) as running:
        stats = running.tiers["mobile"].call({"cmd": "stats"}, deadline_s=20)
        seen = json.loads(inside(client, running, "mobile", LOOK))
    assert seen["quota"] == [1000, 20_000] and seen["memory"] == limits.memory_bytes
    # A quarter of a CPU second at a twentieth of a CPU would take 5 s, nearly all of it throttled, on a busy host too.
    assert stats["cgroup"]["throttled_s"] < 2 and stats["cgroup"]["nr_throttled"] <= stats["cgroup"]["nr_periods"]


def test_kept_networks_serve_many_rounds_and_their_tiers_are_fresh(
    client: docker.DockerClient, launcher: DockerLauncher, tiers: list[TierLimits], links: list[LinkLimits]
) -> None:
    before = owned_by(client, os.getpid())
    instances, networks = [], []
    with launcher.kept():
        for _ in range(2):
            with launcher.launch(tiers[:2], links[:1], {}) as running:
                instances.append(running.tiers["edge"].call({"cmd": "stats"}, deadline_s=20)["instance"])
                owned = owned_by(client, os.getpid()) - before
                networks.append({network["Id"] for network in client.api.networks() if network["Id"] in owned})
                assert len(owned) == 5, "the tiers of the former round are gone before this one is measured"
                shaped = {end.qdisc.split("rate")[1].split()[0] for end in running.describe_shaping()}
                assert shaped == {"209116Kbit"}
    assert instances[0] != instances[1] and networks[0] == networks[1]
    assert owned_by(client, os.getpid()) == before


def test_a_tier_without_links_joins_a_kept_namespace_that_holds_nothing_else(
    client: docker.DockerClient, launcher: DockerLauncher, tiers: list[TierLimits]
) -> None:
    """To make a namespace takes an engine longer than the rest of a container's start."""
    before = owned_by(client, os.getpid())
    instances, modes = [], []
    with launcher.kept():
        for limits in tiers[:2]:
            with launcher.launch([limits], [], {}) as running:
                tier: Any = running.tiers[limits.name]
                instances.append(tier.call({"cmd": "stats"}, deadline_s=20)["instance"])
                modes.append(client.containers.get(tier.container).attrs["HostConfig"]["NetworkMode"])
                assert len(owned_by(client, os.getpid()) - before) == 2
                assert running.describe_shaping() == []
        holder = client.containers.get(modes[0].removeprefix("container:"))
        assert holder.attrs["HostConfig"]["CapAdd"] is None
        assert set(holder.attrs["NetworkSettings"]["Networks"]) == {"none"}
    assert instances[0] != instances[1] and modes[0] == modes[1]
    assert owned_by(client, os.getpid()) == before


def test_a_round_that_fails_takes_its_networks_along(
    client: docker.DockerClient, launcher: DockerLauncher, tiers: list[TierLimits], links: list[LinkLimits]
) -> None:
    before = owned_by(client, os.getpid())
    with launcher.kept():
        with pytest.raises(TierCallError), launcher.launch(tiers[:2], links[:1], {}) as running:
            running.tiers["edge"].call({"cmd": "nothing"}, deadline_s=20)
        assert owned_by(client, os.getpid()) == before


def test_shaping_that_was_removed_is_there_again_in_the_next_round(
    client: docker.DockerClient, launcher: DockerLauncher, tiers: list[TierLimits], links: list[LinkLimits]
) -> None:
    before = owned_by(client, os.getpid())
    with launcher.kept():
        for _ in range(2):
            with launcher.launch(tiers[:2], links[:1], {}) as running:
                assert all("tbf" in end.qdisc for end in running.describe_shaping())
                holders = client.containers.list(filters={"label": "tierwise.role=links"})
                own = [holder for holder in holders if holder.id in owned_by(client, os.getpid()) - before]
                for holder in own:
                    assert holder.exec_run(["tc", "qdisc", "del", "dev", "eth0", "root"]).exit_code == 0
                assert len(own) == 2 and not any("tbf" in end.qdisc for end in running.describe_shaping())


def test_cloud_is_reached_through_edge_only(client: docker.DockerClient, deployment: Deployment) -> None:
    cloud: Any = deployment.tiers["cloud"]
    # A tier has the network of the container that holds it.
    holder = client.containers.get(cloud.container).attrs["HostConfig"]["NetworkMode"].removeprefix("container:")
    networks = client.containers.get(holder).attrs["NetworkSettings"]["Networks"]
    (address,) = [network["IPAddress"] for network in networks.values()]
    assert inside(client, deployment, "edge", CONNECT, "cloud") == "reached"
    assert inside(client, deployment, "mobile", CONNECT, "edge") == "reached"
    assert inside(client, deployment, "mobile", CONNECT, address) != "reached"
    assert deployment.url("mobile", "cloud") == "http://edge:8000/tiers/cloud"


def test_both_ends_of_each_link_are_shaped(deployment: DockerDeployment) -> None:
    shaped = {(end.tier, end.link): end.qdisc for end in deployment.describe_shaping()}
    assert set(shaped) == {
        ("mobile", "mobile-edge"),
        ("edge", "mobile-edge"),
        ("edge", "edge-cloud"),
        ("cloud", "edge-cloud"),
    }
    for (_, link), qdisc in shaped.items():
        assert ("rate 209116Kbit" if link == "mobile-edge" else "rate 10455Kbit") in qdisc


def rates(tier: RunningTier, command: dict[str, Any]) -> dict[str, float]:
    """Return the bits per second of each direction, the most of three looks.

    A link cannot carry more than its rate; less than that in one look may be a core that another machine took.
    """
    looks = [tier.call(command, deadline_s=60) for _ in range(3)]
    return {direction: max(look[direction]["rate_bit_per_s"] for look in looks) for direction in ("up", "down")}


@pytest.mark.alone
@pytest.mark.parametrize("index", [0, 1])
def test_links_carry_payload_at_the_declared_rate(
    deployment: Deployment, links: list[LinkLimits], probe: Callable[..., dict[str, Any]], index: int
) -> None:
    link = links[index]
    command = probe(link, deployment.url(link.upstream, link.downstream), seconds=0.4)
    for rate in rates(deployment.tiers[link.upstream], command).values():
        assert rate == pytest.approx(link.up_bit_per_s, rel=0.05)


@pytest.mark.alone
def test_each_direction_has_its_own_rate(launcher: DockerLauncher, probe: Callable[..., dict[str, Any]]) -> None:
    link = LinkLimits("mobile-edge", "mobile", "edge", 5_000_000, 40_000_000)
    tiers = [TierLimits("mobile", 0.5, 256 << 20, 1), TierLimits("edge", 1, 256 << 20, 1)]
    with launcher.launch(tiers, [link], {}) as running:
        measured = rates(running.tiers["mobile"], probe(link, running.url("mobile", "edge"), seconds=0.4))
    assert measured == pytest.approx({"up": 5_000_000, "down": 40_000_000}, rel=0.05)


def test_files_are_copied_once_and_read_only(
    client: docker.DockerClient, launcher: DockerLauncher, tiers: list[TierLimits], tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"bytes")
    key = f"test-{time.time_ns()}"
    mounts = {"mobile": [Mount("model", {"a/head.onnx": model}, key)]}
    read = (
        "import sys; from pathlib import Path; p = Path(sys.argv[1], 'a/head.onnx'); print(p.read_text()); p.unlink()"
    )
    for content in (b"bytes", b"other"):
        model.write_bytes(content)  # the key stands for the content: the second launch must not look at the file
        with launcher.launch(tiers[:1], [], mounts) as running:
            shown = inside(client, running, "mobile", read, running.tiers["mobile"].path("model"))
            assert "bytes" in shown and "Read-only file system" in shown
    (cached,) = [item for item in client.volumes.list() if item.name.endswith("-complete") and is_of(item, mounts)]
    assert remove_volumes(Engine.connect(), all_of_them=True, key=cached.name.removesuffix("-complete")) == 1
    assert cached.name not in [item.name for item in client.volumes.list()]


def test_a_volume_that_vanishes_between_two_kept_rounds_is_found_by_its_digest_and_filled_again(
    client: docker.DockerClient, launcher: DockerLauncher, tiers: list[TierLimits], tmp_path: Path
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"bytes")
    mount = Mount("model", {"m.onnx": model}, f"test-{time.time_ns()}")

    def digests() -> Any:
        with launcher.launch(tiers[:1], [], {"mobile": [mount]}) as running:
            mobile = running.tiers["mobile"]
            command = {"cmd": "digest", "paths": [f"{mobile.path('model')}/m.onnx"]}
            read = mobile.call(command, deadline_s=20)["sha256"]
            if not read:
                raise ChangedFilesError("other bytes", "model")
            return read

    with launcher.kept():
        before = digests()
        # The tiers of a kept round are removed in the background, and a volume in use stays.
        launcher._finish_removal()
        for name in (volume_name(mount), volume_name(mount) + "-complete"):
            client.volumes.get(name).remove()
        with pytest.raises(ChangedFilesError):
            digests()
        assert digests() == before
    assert remove_volumes(Engine.connect(), all_of_them=True, key=volume_name(mount)) == 1


def is_of(volume: Any, mounts: dict[str, list[Mount]]) -> bool:
    return bool(volume.name.startswith(volume_name(mounts["mobile"][0])))


def test_an_abandoned_filling_is_done_again(
    client: docker.DockerClient, launcher: DockerLauncher, tiers: list[TierLimits], tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"bytes")
    mount = Mount("model", {"m.onnx": model}, f"test-{time.time_ns()}")
    client.volumes.create(volume_name(mount), labels={"tierwise.key": volume_name(mount), "tierwise.owner": "x:1:1"})
    with launcher.launch(tiers[:1], [], {"mobile": [mount]}) as running:
        read = "import sys; print(open(sys.argv[1] + '/m.onnx').read())"
        assert inside(client, running, "mobile", read, running.tiers["mobile"].path("model")) == "bytes"
    for name in (volume_name(mount), volume_name(mount) + "-complete"):
        client.volumes.get(name).remove()


def test_a_tier_killed_during_a_call_is_a_clear_error(
    client: docker.DockerClient, launcher: DockerLauncher, probe: Callable[..., dict[str, Any]]
) -> None:
    tiers = [TierLimits("mobile", 0.5, 256 << 20, 1), TierLimits("edge", 1, 256 << 20, 1)]
    slow = LinkLimits("mobile-edge", "mobile", "edge", 1_000_000, 1_000_000)
    with launcher.launch(tiers, [slow], {}) as running:
        mobile: Any = running.tiers["mobile"]
        killer = threading.Timer(0.5, client.containers.get(mobile.container).kill)
        killer.start()
        with pytest.raises(TierCallError, match="tier 'mobile': TierDied: killed by SIGKILL"):
            mobile.call(probe(slow, running.url("mobile", "edge"), seconds=20), deadline_s=30)
        killer.join()
        with pytest.raises(TierCallError, match="killed by SIGKILL"):
            mobile.call({"cmd": "stats"}, deadline_s=5)


def test_a_tier_that_runs_out_of_memory_during_a_call_says_so(launcher: DockerLauncher) -> None:
    tiers = [TierLimits("mobile", 0.5, 128 << 20, 1), TierLimits("edge", 1, 256 << 20, 1)]
    link = LinkLimits("mobile-edge", "mobile", "edge", 10**9, 10**9)
    with launcher.launch(tiers, [link], {}) as running:
        command = {"cmd": "probe", "url": running.url("mobile", "edge"), "repetitions": 1}
        with pytest.raises(TierCallError, match="out of memory: killed at its limit of 128 MiB"):
            running.tiers["mobile"].call(command | {"small_bytes": 1 << 10, "large_bytes": 300 << 20}, deadline_s=30)


def test_a_tier_too_small_to_start_is_a_launch_error_and_leaves_nothing(
    client: docker.DockerClient, launcher: DockerLauncher
) -> None:
    before = owned_by(client, os.getpid())
    with pytest.raises(LaunchError, match="tier 'mobile' did not get ready: out of memory") as caught:
        launcher.launch([TierLimits("mobile", 1, 16 << 20, 1)], [], {}).__enter__()
    assert caught.value.tier == "mobile"
    assert owned_by(client, os.getpid()) == before


def test_more_cpus_than_the_engine_has_are_refused(launcher: DockerLauncher) -> None:
    with pytest.raises(LaunchError, match="tier 'cloud' needs 4096 CPUs, the Docker engine has"):
        launcher.launch([TierLimits("cloud", 4096, 1 << 30, 1)], [], {}).__enter__()


@pytest.mark.alone
def test_three_tiers_come_and_go_quickly(
    launcher: DockerLauncher, tiers: list[TierLimits], links: list[LinkLimits]
) -> None:
    started = time.monotonic()
    with launcher.launch(tiers, links, {}):
        ready = time.monotonic()
    # The goals are 4 s and 2 s on two idle cores; here, a limit that tiers which wait for a time-out would pass.
    assert ready - started < 30
    assert time.monotonic() - ready < 20


def test_clean_removes_what_a_killed_runner_left_and_spares_the_living(
    client: docker.DockerClient,
    launcher: DockerLauncher,
    deployment: Deployment,
    kill_a_runner: Callable[[str], Any],
    live_runner: Callable[[str], AbstractContextManager[Any]],
) -> None:
    living = owned_by(client, os.getpid())
    killed = kill_a_runner("docker")
    # Two tiers, two holders of their networks, one network.
    assert len(owned_by(client, killed.pid)) == 5
    with live_runner("docker") as other:
        others = owned_by(client, other.pid)
        with ThreadPoolExecutor() as pool:  # two who clean at once find the same things
            list(pool.map(lambda one: one.clean(), [launcher, DockerLauncher(Engine.connect())]))
        assert not owned_by(client, killed.pid)
        assert len(others) == 5 and owned_by(client, other.pid) == others
    assert living and owned_by(client, os.getpid()) == living
    assert deployment.tiers["edge"].call({"cmd": "stats"}, deadline_s=10)["threads"] >= 1


SHARED_CONTENT = """
import sys
from pathlib import Path
from runner.launchers.base import Mount, TierLimits
from runner.launchers.select import select_launcher
mounts = {"mobile": [Mount("model", {"m.onnx": Path(sys.argv[1])}, sys.argv[2])]}
with select_launcher("docker").launcher.launch([TierLimits("mobile", 0.5, 256 << 20, 1)], [], mounts) as deployment:
    deployment.tiers["mobile"].call({"cmd": "stats"}, deadline_s=20)
"""


def test_runners_that_need_the_same_files_at_once_fill_one_volume(client: docker.DockerClient, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(bytes(20 << 20))
    mount = Mount("model", {"m.onnx": model}, f"test-{time.time_ns()}")
    command = [sys.executable, "-c", SHARED_CONTENT, str(model), mount.key]
    runners = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [runner.communicate(timeout=120)[1] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], said
    assert remove_volumes(Engine.connect(), all_of_them=True, key=volume_name(mount)) == 1


def test_a_filling_whose_runner_died_is_taken_over(
    client: docker.DockerClient, launcher: DockerLauncher, tiers: list[TierLimits], tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"bytes")
    mount = Mount("model", {"m.onnx": model}, f"test-{time.time_ns()}")
    name, dead = volume_name(mount), str(replace(Owner.current(), start="1"))
    labels = {"tierwise": "1", "tierwise.key": name, "tierwise.owner": dead}
    client.volumes.create(name, labels=labels)
    client.containers.create(launcher.image().tag, ["python"], name=f"{name}-fill", labels=labels)
    with launcher.launch(tiers[:1], [], {"mobile": [mount]}) as running:
        read = "import sys; print(open(sys.argv[1] + '/m.onnx').read())"
        assert inside(client, running, "mobile", read, running.tiers["mobile"].path("model")) == "bytes"
    assert not client.containers.list(all=True, filters={"name": f"{name}-fill"})
    for volume in (name, f"{name}-complete"):
        client.volumes.get(volume).remove()


class Relay:
    """A TCP way to the engine that can be cut, as a remote engine's can."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = [self._listening]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect("/var/run/docker.sock")
            self._open += [near, far]
            for pair in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pump, args=pair, daemon=True))
                self._threads[-1].start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self) -> None:
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(timeout=5)


def test_an_engine_that_goes_away_is_named(client: docker.DockerClient, tiers: list[TierLimits]) -> None:
    before = owned_by(client, os.getpid())
    relay = Relay()
    remote = DockerLauncher(Engine(docker.DockerClient(base_url=f"tcp://127.0.0.1:{relay.port}")))
    with (
        pytest.raises(EngineUnavailableError, match="the Docker engine does not answer"),
        remote.launch(tiers[:1], [], {}) as running,
    ):
        assert running.tiers["mobile"].call({"cmd": "stats"}, deadline_s=10)["threads"] >= 1
        relay.cut()
        running.tiers["mobile"].call({"cmd": "stats"}, deadline_s=10)
    for left in owned_by(client, os.getpid()) - before:
        client.containers.get(left).remove(force=True)
