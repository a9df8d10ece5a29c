"""A tier tries from inside what it must not be able to do."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from runner.launchers.base import Deployment, LinkLimits, Mount, TierLimits
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import Engine

pytestmark = pytest.mark.docker

# Runs in the tier's own container as the tier's own user; each attempt says `done` or how it failed.
ATTEMPTS = """
import ctypes, errno, json, os, shutil, socket, subprocess, sys, threading, time, urllib.error, urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

def tried(attempt):
    try:
        attempt()
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return "done"

def mount():
    if ctypes.CDLL(None, use_errno=True).mount(b"none", b"/tmp", b"tmpfs", 0, b""):
        raise OSError(ctypes.get_errno(), "mount")

def run_from_tmp():
    shutil.copy("/bin/true" if os.path.exists("/bin/true") else sys.executable, "/tmp/program")
    os.chmod("/tmp/program", 0o755)
    subprocess.run(["/tmp/program", "--version"], check=True)

def tasks():  # threads count as processes do, and take less memory
    end, started = threading.Event(), 0
    try:
        while started < 1000:
            threading.Thread(target=end.wait).start()
            started += 1
    except RuntimeError:
        pass
    end.set()
    return started

def reach(address):
    socket.create_connection(tuple(address), timeout=1).close()

def resolve():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        question = b"\\7example\\3com\\0" + bytes([0, 1, 0, 1])
        asking.sendto(bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + question, ("127.0.0.11", 53))
        answers = int.from_bytes(asking.recv(512)[6:8], "big")
        if not answers:
            raise OSError(errno.EHOSTUNREACH, "no answer")

def command():  # what it then relays would say whether it obeyed
    order = {"id": 1, "cmd": "load", "parts": [], "routes": {"elsewhere": "http://edge:8000"}}
    with open("/proc/1/fd/0", "w") as stdin:
        for token in ({}, {"token": "0" * 32}, {"token": None}):
            stdin.write(json.dumps(order | token) + chr(10))
    time.sleep(0.5)
    urllib.request.urlopen("http://127.0.0.1:8000/tiers/elsewhere/v2")

def load():
    url = "http://127.0.0.1:8000/v2/repository/models/net/load"
    urllib.request.urlopen(urllib.request.Request(url, data=b"{}", method="POST"))

status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
model = Path("/tierwise/model/net.onnx")
attempts = {
    "write to the root": lambda: Path("/x").write_text("x"),
    "write to the program": lambda: Path(sys.executable).write_bytes(b""),
    "write to a mount": lambda: (model.parent / "x").write_text("x"),
    "change a mounted file": lambda: model.write_bytes(b"other"),
    "make a mounted file writable": lambda: model.chmod(0o777),
    "write to /sys": lambda: Path("/sys/fs/cgroup/x").mkdir(),
    "write to /proc/sys": lambda: Path("/proc/sys/kernel/core_pattern").write_text("x"),
    "become root": lambda: os.setuid(0),
    "give a file away": lambda: (Path("/tmp/own").write_text("x"), os.chown("/tmp/own", 0, 0)),
    "mount": mount,
    "make a device": lambda: os.mknod("/tmp/device", 0o600 | 0o060000, os.makedev(8, 0)),
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "change the hostname": lambda: socket.sethostname("other"),
    "run what it wrote": run_from_tmp,
    "load a model over the network": load,
    "command the tier over its standard input": command,
    "read the tier's environment": lambda: Path("/proc/1/environ").read_bytes(),
    "read the tier's memory": lambda: open("/proc/1/mem", "rb").close(),
    "read the tier's standard input": lambda: open("/proc/1/fd/0", "rb").close(),
    "resolve a foreign name": resolve,
}
outside = [tuple(each) for each in json.loads(sys.argv[1])]
with ThreadPoolExecutor(8) as pool:
    reached = dict(zip(map(str, outside), pool.map(lambda each: tried(lambda: reach(each)), outside)))
print(json.dumps({
    "attempts": {name: tried(attempt) for name, attempt in attempts.items()},
    "outside": reached,
    "edge": tried(lambda: reach(("edge", 8000))),
    "tasks": tasks(),
    "uid": os.getuid(), "groups": os.getgroups(),
    "capabilities": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privileges": int(status["NoNewPrivs"]),
    "model": model.read_text(),
}))
"""


@pytest.fixture(scope="module")
def engine_client() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def host_port() -> Iterator[int]:
    """Something on this machine that listens on every address."""
    with socket.create_server(("0.0.0.0", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    model = tmp_path_factory.mktemp("model") / "net.onnx"
    model.write_text("weights")
    mounts = {"mobile": [Mount("model", {"net.onnx": model}, "isolation-test")]}
    tiers = [TierLimits("mobile", 1.0, 256 << 20, 1), TierLimits("edge", 1.0, 256 << 20, 1)]
    link = LinkLimits("mobile-edge", "mobile", "edge", 10**8, 10**8)
    with DockerLauncher(Engine.connect()).launch(tiers, [link], mounts) as running:
        yield running


def gateways(client: docker.DockerClient) -> set[str]:
    """Where a container would find the host, on every network of the engine."""
    addresses = set()
    for network in client.api.networks():
        for pool in (network["IPAM"] or {}).get("Config") or []:
            first = pool["Subnet"].rsplit(".", 1)[0] + ".1"
            addresses.add(pool.get("Gateway", first).split("/")[0])
    return {address for address in addresses if ":" not in address}


@pytest.fixture(scope="module")
def seen(deployment: Deployment, engine_client: docker.DockerClient, host_port: int) -> dict[str, Any]:
    outside = [(gateway, host_port) for gateway in sorted(gateways(engine_client))]
    outside += [("1.1.1.1", 53), ("169.254.169.254", 80)]
    tier: Any = deployment.tiers["mobile"]
    container = engine_client.containers.get(tier.container)
    for _ in range(3):
        answer = container.exec_run(["python", "-c", ATTEMPTS, json.dumps(outside)], demux=True)
        assert answer.exit_code == 0, answer.output
        if answer.output[0]:  # on a loaded machine engines lose what a command said
            break
    view: dict[str, Any] = json.loads(answer.output[0])
    return view


def test_nothing_that_was_tried_succeeds(seen: dict[str, Any]) -> None:
    succeeded = [name for name, outcome in seen["attempts"].items() if outcome == "done"]
    assert not succeeded and seen["attempts"]["write to a mount"] == "EROFS", seen["attempts"]
    assert seen["attempts"]["load a model over the network"] == "404"
    assert seen["attempts"]["command the tier over its standard input"] == "EACCES"
    assert seen["model"] == "weights"


def test_the_user_is_nobody_without_capabilities(seen: dict[str, Any]) -> None:
    assert (seen["uid"], seen["capabilities"], seen["no_new_privileges"]) == (65534, [0] * 5, 1)
    assert 0 not in seen["groups"]


def test_only_the_link_leads_anywhere(seen: dict[str, Any], host_port: int) -> None:
    assert seen["edge"] == "done"
    assert len(seen["outside"]) >= 3
    assert "done" not in seen["outside"].values(), seen["outside"]
    with socket.create_connection(("127.0.0.1", host_port), timeout=5):
        pass  # what they did not reach was there


def test_processes_are_limited_and_the_tier_goes_on(seen: dict[str, Any], deployment: Deployment) -> None:
    assert 50 < seen["tasks"] < 256
    assert deployment.tiers["mobile"].call({"cmd": "stats"}, deadline_s=10)["threads"] >= 1
