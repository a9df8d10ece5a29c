"""Tiers at places of their own, here one engine by two addresses: they reach one another over published ports."""

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from catalog.declaration import TestbedSpec, TierPlace
from runner.errors import ChangedFilesError, LaunchError
from runner.launchers.base import LinkLimits, Mount, TierLimits
from runner.launchers.hosts import TestbedLauncher
from runner.launchers.select import launcher_of
from runner.sealed import current_sha256

SOCKET = "unix:///var/run/docker.sock"
TIERS = [TierLimits("mobile", 0.5, 256 << 20, 1), TierLimits("edge", 1.0, 512 << 20, 1)]
LINKS = [LinkLimits("mobile-edge", "mobile", "edge", 10**8, 10**8, real=True)]

pytestmark = pytest.mark.docker


def places(**edge: object) -> TestbedSpec:
    mobile = TierPlace(engine="local")
    return TestbedSpec(tiers={"mobile": mobile, "edge": TierPlace.model_validate({"engine": SOCKET, **edge})})


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """Yield the address of this machine that the containers of its engine reach."""
    client = docker.from_env()
    yield client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    client.close()


@pytest.fixture(scope="module")
def launcher(gateway: str) -> TestbedLauncher:
    launcher = TestbedLauncher.open(places(address=gateway))
    launcher.prepare()
    return launcher


def test_tiers_reach_one_another_and_read_their_files(launcher: TestbedLauncher, gateway: str, tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"x")
    mount = Mount("inputs", {"x.bin": file}, "testbed", {"x.bin": current_sha256(file)})
    with launcher.kept(), launcher.launch(TIERS, LINKS, {"mobile": [mount], "edge": [mount]}) as deployment:
        url = deployment.url("mobile", "edge")
        assert url.startswith(f"http://{gateway}:")
        for name, tier in deployment.tiers.items():
            tier.call({"cmd": "load", "parts": [], "routes": deployment.routes(name)}, deadline_s=20)
            path = f"{tier.path('inputs')}/x.bin"
            read = tier.call({"cmd": "digest", "paths": [path]}, deadline_s=20)
            assert read["sha256"] == {path: mount.sha256["x.bin"]}
        probe = {"cmd": "probe", "url": url, "small_bytes": 1000, "large_bytes": 10_000, "repetitions": 1}
        assert deployment.tiers["mobile"].call(probe, deadline_s=20)["rtt_s"] > 0
        stats = deployment.tiers["edge"].call({"cmd": "stats"}, deadline_s=20)
        containers = docker.from_env()
        limits = [
            containers.containers.get(tier.container).attrs["HostConfig"]["Memory"]  # type: ignore[attr-defined]
            for tier in deployment.tiers.values()
        ]
        containers.close()
    assert stats["threads"] >= 1 and limits == [tier.memory_bytes for tier in TIERS]


def test_changed_files_are_sent_again(launcher: TestbedLauncher, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"y")
    mount = Mount("inputs", {"x.bin": tmp_path / "x.bin"}, "changed", {"x.bin": current_sha256(tmp_path / "x.bin")})
    engine = launcher.engines()[0]
    with pytest.raises(ChangedFilesError), launcher.kept(), launcher.launch(TIERS[:1], [], {"mobile": [mount]}):
        assert engine.volumes
        raise ChangedFilesError("other bytes", "inputs")
    assert not engine.volumes and not [
        volume for volume in engine.engine.list_volumes("tierwise.key") if "changed" in json.dumps(volume)
    ]


def test_each_tier_has_the_machine_of_its_engine(launcher: TestbedLauncher) -> None:
    hosts = launcher.hosts(["mobile", "edge"])
    assert [host.place for host in hosts.values()] == ["local", SOCKET]
    assert launcher.host().fingerprint not in {host.fingerprint for host in hosts.values()}
    described = json.dumps([launcher.describe().details, launcher.host().to_json()])
    assert "docker.sock" not in described and "edge.kernel" in described


WRONG = [
    (
        {"address": "127.0.0.1"},
        "tier 'edge': 127.0.0.1 leads every tier to itself; name one that the other tiers reach",
    ),
    ({"address": "no-such-host.invalid"}, "tier 'edge': no address of 'no-such-host.invalid' is known here"),
    ({"engine": "unix:///nothing"}, "tier 'edge': connecting to unix:///nothing: the Docker engine does not answer"),
]


@pytest.mark.parametrize(("edge", "said"), WRONG, ids=[said[:30] for _, said in WRONG])
def test_a_place_that_cannot_be_used_is_one_sentence(edge: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError) as caught:
        launcher_of(places(**edge), name="lab", base=tmp_path)
    assert said in str(caught.value)
