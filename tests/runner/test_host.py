"""The environment is that of the tiers: facts and keys follow the engine's machine, wherever the runner is."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from catalog.declaration import load_catalog, parse_catalog
from catalog.keys import content_key
from runner import host
from runner.errors import HostTooSmallError, LaunchError, RunnerError
from runner.host import Host, host_of_engine, this_host, versions
from runner.launchers.docker import DockerLauncher, read_host
from runner.launchers.engine import ContainerSpec, Engine
from runner.launchers.process import ProcessLauncher
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext, key_strategy
from runner.measuring.tiers import Scale, check_host, resolve_provider
from tierserver.facts import read_facts
from tierserver.messages import TierFacts

CATALOG = """\
version: 1
subjects: {s: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}
operators: {identity: [], quantized: [static_ptq: {calibration_samples: 8}]}
tiers: {edge: {cpus: 1, memory: 512m}}
strategies: [{operators: [identity, quantized], placements: [edge]}]
experiment: {inputs: 2, rounds: 1}
"""


@dataclass
class EngineDouble:
    """An engine on a machine of the test's choice, that counts how often its containers were asked."""

    facts: TierFacts
    info: Mapping[str, Any]
    specs: list[ContainerSpec] = field(default_factory=list)

    def run_to_end(self, spec: ContainerSpec) -> str:
        self.specs.append(spec)
        return json.dumps(self.facts.to_json()) + "\n"


def elsewhere(*, vnni: bool, identity: str = "AAAA", **facts: Any) -> Host:
    """Return a machine with 64 CPUs that differs from this one in everything."""
    reported = TierFacts("Tierwise Test CPU", vnni, "another boot", "1.99.0", ("CPUExecutionProvider",))
    info = {"ID": identity, "Name": "far", "NCPU": 64, "MemTotal": 2**40, "KernelVersion": "5.4.0-test"}
    engine = EngineDouble(replace(reported, **facts), info)
    host = read_host(engine, image="tierwise-tier:x", labels={"tierwise": "1"})
    assert len(engine.specs) == 1 and engine.specs[0].network_mode == "none"
    return host


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("host")
    (directory / "strategies.yaml").write_text(CATALOG)
    return directory


@pytest.fixture(scope="module")
def keyed(base: Path) -> Callable[[Host], tuple[str, dict[str, KeyedStrategy]]]:
    """Return the environment key and the keyed strategies by operator on a host."""

    def keys(host: Host) -> tuple[str, dict[str, KeyedStrategy]]:
        catalog = load_catalog(base / "strategies.yaml")
        context = RunContext(catalog, base, "docker", Scale.parse("1"), base / "work", host=host)
        context.prepare()
        by_operator = {item.operator: key_strategy(context, item) for item in catalog.strategies()}
        return context.environment_key, by_operator

    return keys


Keys = Callable[[Host], tuple[str, dict[str, KeyedStrategy]]]


def test_facts_come_from_the_engine_and_from_inside_a_tier() -> None:
    host = elsewhere(vnni=False)
    assert (host.cpu_model, host.cpu_count, host.memory_bytes) == ("Tierwise Test CPU", 64, 2**40)
    assert elsewhere(vnni=True).vnni
    assert (host.kernel, host.vnni, host.onnxruntime) == ("5.4.0-test", False, "1.99.0")
    assert host.remote and host.fingerprint != this_host().fingerprint
    assert "far" not in json.dumps(host.to_json()), "a fingerprint tells machines apart without naming them"


def test_two_engines_share_no_environment_and_one_engine_has_one(keyed: Keys) -> None:
    first, again = elsewhere(vnni=True), elsewhere(vnni=True)
    second = elsewhere(vnni=True, identity="BBBB")
    assert first == again
    assert len({keyed(host)[0] for host in (first, second, this_host())}) == 3
    latencies = {keyed(host)[1]["identity"].latency_key for host in (first, second, this_host())}
    assert len(latencies) == 3
    assert keyed(first)[1]["identity"].conditions["host"] == first.fingerprint
    assert keyed(first)[1]["identity"].conditions["runtime"] == "1.99.0"


def test_seven_bit_weights_and_accuracies_follow_the_cpu_of_the_tiers(keyed: Keys) -> None:
    old, new = keyed(elsewhere(vnni=False))[1], keyed(elsewhere(vnni=True))[1]
    assert [keys["quantized"].passes[0].options()["reduce_range"] for keys in (old, new)] == [True, False]
    assert old["quantized"].artifact_key != new["quantized"].artifact_key
    assert old["identity"].artifact_key == new["identity"].artifact_key
    other_cpu = keyed(elsewhere(vnni=True, cpu_model="Tierwise Test CPU 9"))[1]
    assert other_cpu["identity"].accuracy_key != new["identity"].accuracy_key
    assert other_cpu["quantized"].artifact_key == new["quantized"].artifact_key


def test_limits_and_providers_are_the_tiers_hosts() -> None:
    host = replace(elsewhere(vnni=True), cpu_count=2)
    with pytest.raises(HostTooSmallError, match="the Docker engine's host has 2"):
        check_host(parse_catalog(CATALOG.replace("cpus: 1", "cpus: 4")), host, Scale.parse("1"))
    gpu = replace(host, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert [resolve_provider(("cuda", "cpu"), host_of_tiers) for host_of_tiers in (gpu, host)] == ["cuda", "cpu"]
    with pytest.raises(RunnerError, match="the Docker engine's host has none of the declared providers cuda"):
        resolve_provider(("cuda",), host)


def local_info(**changes: Any) -> dict[str, Any]:
    """Return what an engine of this machine reports."""
    here = this_host()
    return {
        "ID": "CCCC",
        "NCPU": here.cpu_count,
        "MemTotal": here.memory_bytes,
        "KernelVersion": here.kernel,
    } | changes


def test_an_engine_of_this_machine_has_the_keys_that_it_always_had(keyed: Keys) -> None:
    host = host_of_engine(local_info(), read_facts())
    assert host == this_host() == ProcessLauncher().host()
    before = {"launcher": "docker", "scale": "1", "host": host.fingerprint, "runtime": versions()["onnxruntime"]}
    assert keyed(host)[0] == content_key(before)


@pytest.mark.parametrize("changes", [{"MemTotal": 1}, {"KernelVersion": "5"}, {"NCPU": 4096}])
def test_a_clone_of_this_machine_is_another_one(changes: dict[str, Any]) -> None:
    assert host_of_engine(local_info(**changes), read_facts()).remote
    assert host_of_engine(local_info(), replace(read_facts(), boot_id="another")).remote
    assert host_of_engine(local_info(), replace(read_facts(), boot_id="")).remote


def test_a_container_that_says_something_else_is_one_error() -> None:
    class Mute(EngineDouble):
        def run_to_end(self, spec: ContainerSpec) -> str:
            return "Illegal instruction"

    with pytest.raises(LaunchError, match=r"did not report its machine.*Illegal instruction"):
        read_host(Mute(read_facts(), {}), image="tierwise-tier:x", labels={})


@pytest.mark.docker
def test_the_local_engines_facts_are_this_hosts() -> None:
    launcher = DockerLauncher(Engine.connect())
    host = launcher.host()
    assert host == this_host() and launcher.host() is host


def test_the_runtime_for_gpus_alone_is_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = versions()

    def version(package: str) -> str:
        if package == "onnxruntime":
            raise PackageNotFoundError(package)
        return expected["onnxruntime"] if package == "onnxruntime-gpu" else expected[package]

    monkeypatch.setattr(host, "version", version)
    assert versions() == expected
