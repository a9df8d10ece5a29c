"""Tiers at places of their own: a tier server, and one engine by two addresses, whose containers publish ports."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from catalog.declaration import TestbedSpec
from runner.errors import ChangedFilesError, LaunchError
from runner.launchers.base import LinkLimits, Mount, TierLimits
from runner.launchers.container import DockerTier, volume_name
from runner.launchers.docker import launch_labels
from runner.launchers.hosts import TestbedLauncher
from runner.launchers.select import launcher_of
from runner.workdir import current_sha256

SOCKET = "unix:///var/run/docker.sock"
TOKEN = "token-" + "0123456789" * 3
TIERS = [
    TierLimits("mobile", 1.0, 256 << 20, 1),
    TierLimits("edge", 0.5, 256 << 20, 1),
    TierLimits("cloud", 1.0, 512 << 20, 1),
]
LINKS = [
    LinkLimits("mobile-edge", "mobile", "edge", 10**8, 10**8, real=True),
    LinkLimits("edge-cloud", "edge", "cloud", 10**8, 10**8, real=True),
]

pytestmark = pytest.mark.docker


def places(**cloud: object) -> TestbedSpec:
    """Return a testbed with a tier server, and one engine by two addresses."""
    edge = {"engine": "local", "address": "192.0.2.1"}
    tiers = {"mobile": "local", "edge": edge, "cloud": {"engine": SOCKET, "address": "192.0.2.1", **cloud}}
    return TestbedSpec.model_validate({"tiers": tiers})


@pytest.fixture(scope="module")
def launcher(gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestbedLauncher]:
    folder = tmp_path_factory.mktemp("places")
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "token").chmod(0o600)
    serve = [sys.executable, "-m", "tierserver", "--serve", "127.0.0.1:0", "--data-port", "0"]
    serve += ["--token-file", str(folder / "token"), "--cache", str(folder / "cache")]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        port = serving.stderr.readline().split("port ")[1].split(" ")[0]
        spec = places(address=gateway).model_dump()["tiers"]
        spec["mobile"] = {"server": f"http://127.0.0.1:{port}", "token_file": "token"}
        spec["edge"]["address"] = gateway
        launcher = TestbedLauncher.open(TestbedSpec.model_validate({"tiers": spec}), base=folder)
        launcher.prepare()
        yield launcher
        serving.kill()


def test_tiers_reach_one_another_and_read_their_files(launcher: TestbedLauncher, gateway: str, tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"x")
    mount = Mount("inputs", {"x.bin": file}, "testbed", {"x.bin": current_sha256(file)})
    mounts = {tier.name: [mount] for tier in TIERS}
    with launcher.kept(), launcher.launch(TIERS, LINKS, mounts) as deployment:
        url = deployment.url("mobile", "cloud")
        assert url.startswith(f"http://{gateway}:") and url.endswith("/tiers/cloud")
        for name, tier in deployment.tiers.items():
            tier.call({"cmd": "load", "parts": [], "routes": deployment.routes(name)}, deadline_s=20)
            path = f"{tier.path('inputs')}/x.bin"
            read = tier.call({"cmd": "digest", "paths": [path]}, deadline_s=20)
            assert read["sha256"] == {path: mount.sha256["x.bin"]}
        probe = {"cmd": "probe", "url": url, "small_bytes": 1000, "large_bytes": 10_000, "repetitions": 1}
        assert deployment.tiers["mobile"].call(probe, deadline_s=20)["rtt_s"] > 0
        running = [deployment.tiers[name] for name in ("edge", "cloud")]
        assert all(isinstance(tier, DockerTier) for tier in running)
        engine = launcher.engines()[0].engine
        limits = [
            engine.inspect(tier.container)["HostConfig"]["Memory"] for tier in running if isinstance(tier, DockerTier)
        ]
    assert limits == [256 << 20, 512 << 20]


def test_a_link_between_engines_is_slowed_down_to_what_is_declared(gateway: str) -> None:
    spec = places(address=gateway).model_dump()["tiers"]
    spec["edge"]["address"] = gateway
    emulated = TestbedLauncher.open(TestbedSpec.model_validate({"tiers": spec, "links": "emulated"}))
    tiers, link = [replace(tier, cpus=1.0) for tier in TIERS[1:]], replace(LINKS[1], real=False, delay_s=0.02)
    slow = replace(link, up_bit_per_s=4_000_000, down_bit_per_s=8_000_000)
    with emulated.launch(tiers, [slow], {}) as deployment:
        url = deployment.url("edge", "cloud")
        assert url.startswith("http://127.0.0.1:")
        probe = {"cmd": "probe", "url": url, "small_bytes": 20_000, "large_bytes": 60_000, "repetitions": 1}
        answer = deployment.tiers["edge"].call(probe, deadline_s=20)
    assert answer["rtt_s"] >= 0.04
    # Wide, because this machine may be busy: the link that is there is a thousand times as fast.
    assert 2e6 < answer["up"]["rate_bit_per_s"] < 6e6 and 4e6 < answer["down"]["rate_bit_per_s"] < 12e6
    assert emulated.host().fingerprint != TestbedLauncher(emulated._places).host().fingerprint


def test_changed_files_are_sent_again(launcher: TestbedLauncher, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"y")
    mount = Mount("inputs", {"x.bin": tmp_path / "x.bin"}, "changed", {"x.bin": current_sha256(tmp_path / "x.bin")})
    engine = launcher.engines()[0]
    with launcher.kept():
        engine.fill_volumes([mount], launch_labels(), kept=True)
        assert engine.engine.volume_labels(volume_name(mount)) is not None and engine.volumes
        with pytest.raises(ChangedFilesError), launcher.launch([], [], {"edge": [mount]}):
            raise ChangedFilesError("other bytes", "inputs")
        assert engine.engine.volume_labels(volume_name(mount)) is None and not engine.volumes


def test_each_tier_has_the_machine_of_its_place(launcher: TestbedLauncher) -> None:
    hosts = launcher.hosts(["mobile", "edge", "cloud"])
    assert [host.place.partition(":")[0] for host in hosts.values()] == ["http", "local", "unix"]
    assert launcher.host().fingerprint not in {host.fingerprint for host in hosts.values()}
    described = json.dumps([launcher.describe().details, launcher.host().to_json()])
    assert "docker.sock" not in described and "127.0.0.1" not in described and "cloud.kernel" in described
    assert len(launcher.engines()) == 2 and len(launcher.engine_launchers()) == 1 and len(launcher.servers()) == 1


WRONG = [
    ({"address": "127.0.0.1"}, "tier 'cloud': 127.0.0.1 leads every tier to itself; name one that the other tiers"),
    ({"address": "no-such-host.invalid"}, "tier 'cloud': no address of 'no-such-host.invalid' is known here"),
    ({"engine": "unix:///nothing"}, "tier 'cloud': connecting to unix:///nothing: the Docker engine does not answer"),
    ({"engine": None, "server": "http://127.0.0.1:9"}, "tier 'cloud': http://127.0.0.1:9 does not answer"),
    (
        {"engine": None, "server": "http://127.0.0.1:9", "token_file": "none"},
        "tier 'cloud': its token_file none cannot be read (No such file or directory); allowed: a file with the token",
    ),
]


@pytest.mark.parametrize(("cloud", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_a_place_that_cannot_be_used_is_one_sentence(cloud: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError) as caught:
        launcher_of(places(**cloud), name="lab", base=tmp_path)
    assert said in str(caught.value)
