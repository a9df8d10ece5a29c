"""The environment is that of the tiers: facts and keys follow the engine's machine, wherever the runner is."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from catalog.declaration import Catalog, load_catalog, parse_catalog
from catalog.evidence.database import open_database
from catalog.keys import content_key
from runner import host
from runner.errors import HostTooSmallError, LaunchError, RunnerError
from runner.host import Host, environment_host, host_of_engine, this_host, versions
from runner.launchers.docker import DockerLauncher, read_host
from runner.launchers.engine import ContainerSpec, Engine
from runner.launchers.process import ProcessLauncher
from runner.launchers.select import Selection
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext, key_strategy
from runner.measuring.setups import store_environment
from runner.measuring.tiers import Scale, check_host, check_hosts, resolve_provider
from runner.operators.static_ptq import StaticPtq
from tierserver.machine import read_facts
from tierserver.messages import TierFacts

CATALOGS = Path(__file__).parents[2] / "catalogs"
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


def test_an_image_of_another_architecture_is_refused() -> None:
    with pytest.raises(LaunchError, match=r"is of x86_64, and the machine under the engine is of aarch64, which would"):
        read_host(
            EngineDouble(replace(read_facts(), architecture="x86_64"), {"Architecture": "aarch64"}),
            image="tierwise-tier:x",
            labels={},
        )
    assert elsewhere(vnni=True, architecture="arm64").cpu_count == 64


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


def test_an_engine_that_a_testbed_names_has_an_environment_of_its_own() -> None:
    named = [
        host_of_engine(local_info(DockerRootDir=root), read_facts(), place=f"unix://{root}.sock")
        for root in ("/a", "/b")
    ]
    assert len({host.fingerprint for host in (*named, this_host())}) == 3
    assert named[0].label == "unix:///a.sock" and ".sock" not in json.dumps(named[0].to_json())


TIERS = """\
version: 1
subjects: {s: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}
operators: {identity: [], quantized: [static_ptq: {calibration_samples: 8}], halves: [partition]}
tiers:
  mobile: {cpus: 1, memory: 512m}
  edge: {cpus: 2, memory: 512m}
  cloud: {cpus: 4, memory: 1g, provider: [cuda, cpu]}
links: {mobile-edge: {bandwidth: 10mbit}, edge-cloud: {bandwidth: 10mbit}}
strategies:
  - {operators: [identity, quantized], placements: [mobile, cloud]}
  - {operators: [halves], placements: [mobile-edge, mobile-cloud]}
experiment: {inputs: 2, rounds: 1}
"""
OLD = elsewhere(vnni=False, identity="AAAA", cpu_model="Old CPU")
NEW = elsewhere(vnni=True, identity="BBBB", cpu_model="New CPU")
GPU = replace(NEW, fingerprint="gpu", providers=("CUDAExecutionProvider", "CPUExecutionProvider"))


@pytest.fixture(scope="module")
def on_hosts(base: Path) -> Callable[..., tuple[RunContext, dict[str, KeyedStrategy]]]:
    """Return the run and the keyed strategies by operator and placement, on a host for each tier."""

    def keys(*hosts: Host, replicas: str | None = None) -> tuple[RunContext, dict[str, KeyedStrategy]]:
        catalog, by_tier = parse_catalog(TIERS), dict(zip(("mobile", "edge", "cloud"), hosts, strict=True))
        host = environment_host(by_tier, replicas=replicas, real_links=True)
        context = RunContext(
            catalog, base, "testbed", Scale.parse("1"), base / "work", host=host, hosts=by_tier, real_links=True
        )
        strategies = catalog.strategies()
        return context, {f"{item.operator}@{item.placement.name}": key_strategy(context, item) for item in strategies}

    return keys


OnHosts = Callable[..., tuple[RunContext, dict[str, KeyedStrategy]]]


def test_int8_and_providers_are_chosen_for_each_tier(on_hosts: OnHosts) -> None:
    _, keyed = on_hosts(OLD, NEW, GPU)
    reduced = {name: item.passes[0].options()["reduce_range"] for name, item in keyed.items() if "quantized" in name}
    assert reduced == {"quantized@mobile": True, "quantized@cloud": False}
    tiers: Any = keyed["identity@cloud"].conditions["tiers"]
    assert [(tier["name"], tier["provider"]) for tier in tiers] == [
        ("mobile", "cpu"),
        ("edge", "cpu"),
        ("cloud", "cuda"),
    ]
    links: Any = keyed["identity@cloud"].conditions["links"]
    assert [link["real"] for link in links] == [True, True]


def test_an_accuracy_is_that_of_the_machine_that_computes_it(on_hosts: OnHosts) -> None:
    _, keyed = on_hosts(OLD, NEW, NEW)
    _, elsewhere_keyed = on_hosts(replace(OLD, cpu_model="Other CPU"), NEW, NEW)
    changed = {name for name in keyed if keyed[name].accuracy_key != elsewhere_keyed[name].accuracy_key}
    assert changed == {"identity@mobile", "quantized@mobile", "halves@mobile-edge", "halves@mobile-cloud"}
    # Parts on unlike machines need not equal the uncut model, so they are judged together.
    assert keyed["halves@mobile-cloud"].judged.composed
    assert not on_hosts(NEW, NEW, NEW)[1]["halves@mobile-cloud"].judged.composed


def test_the_environment_is_that_of_all_tiers(on_hosts: OnHosts) -> None:
    ways = [(OLD, NEW, GPU), (NEW, OLD, GPU), (OLD, NEW, NEW), (OLD, OLD, OLD)]
    contexts = [on_hosts(*way)[0] for way in ways]
    assert len({context.environment_key for context in contexts}) == len(ways)
    assert len({on_hosts(*way)[1]["identity@mobile"].latency_key for way in ways}) == len(ways)
    assert contexts[0].environment_key == on_hosts(OLD, NEW, GPU)[0].environment_key
    assert contexts[0].host.cpu_model == "Old CPU + New CPU"


def test_boards_of_one_kind_share_an_environment_and_others_do_not(on_hosts: OnHosts) -> None:
    twin = replace(OLD, fingerprint="twin", memory_bytes=OLD.memory_bytes - 1, kernel="5.4.1")

    def environment(*hosts: Host, replicas: str = "boards") -> str:
        return on_hosts(*hosts, replicas=replicas)[0].environment_key

    assert environment(OLD, NEW, NEW) == environment(twin, NEW, NEW)
    assert environment(OLD, NEW, NEW) != environment(OLD, NEW, NEW, replicas="phones")
    assert environment(OLD, NEW, NEW) != environment(replace(twin, cpu_count=2), NEW, NEW)
    alone = {"mobile": OLD, "edge": OLD, "cloud": OLD}
    assert environment_host(alone) == OLD
    assert environment_host(alone, replicas="boards").fingerprint not in (OLD.fingerprint, environment(OLD, OLD, OLD))


def test_the_evidence_describes_the_machines_of_every_replica(on_hosts: OnHosts, tmp_path: Path) -> None:
    twin = replace(OLD, fingerprint="twin", kernel="5.4.1")
    with open_database(tmp_path / "e.db", create=True) as database:
        for name, board in (("board-1", OLD), ("board-2", twin)):
            context, _ = on_hosts(board, NEW, NEW, replicas="boards")
            selection = Selection(ProcessLauncher(), "for a test", name, "boards", real_links=True)
            with database.writing_session() as writing:
                store_environment(writing, context, selection)
                writing.commit()
        with database.session() as reading:
            (details,) = reading.execute(text("select details from environment")).scalars()
    testbeds = json.loads(details)["testbeds"]
    kernels = {name: tiers["mobile"]["kernel"] for name, tiers in testbeds.items()}
    assert kernels == {"board-1": OLD.kernel, "board-2": "5.4.1"}


def test_a_host_smaller_than_its_tier_is_named() -> None:
    catalog = parse_catalog(TIERS)
    hosts = {
        "mobile": replace(OLD, place="ssh://pi@board"),
        "edge": NEW,
        "cloud": replace(NEW, cpu_count=2, place="ssh://gpu"),
    }
    with pytest.raises(
        HostTooSmallError, match=r"tier 'cloud' declares 4 CPUs .*ssh://gpu has 2\. Declare fewer, or name"
    ):
        check_hosts(catalog, hosts, Scale.parse("1"), real_links=True)
    check_hosts(catalog, {**hosts, "cloud": NEW}, Scale.parse("1"), real_links=True)
    with pytest.raises(RunnerError, match=r"--scale 1/2 shrinks CPUs and links together, and the links .* are real"):
        check_hosts(catalog, {**hosts, "cloud": NEW}, Scale.parse("1/2"), real_links=True)


def measured_context(file: Path, catalog: Catalog, directory: Path) -> tuple[RunContext, dict[str, Any]]:
    """Return a committed document and the run that a catalog would be on the host that measured it."""
    with gzip.open(file) as stream:
        document = json.load(stream)
    (environment,) = document["environments"]
    facts = {
        "providers": ("CPUExecutionProvider",),
        "onnxruntime": environment["onnxruntime"],
        **environment["details"]["host"],
    }
    host = Host(**{**facts, "providers": tuple(facts["providers"])})
    hosts = dict.fromkeys(catalog.tiers, host)
    scale, launcher = Scale.parse(environment["scale"]), environment["launcher"]
    context = RunContext(catalog, CATALOGS, launcher, scale, directory, host=environment_host(hosts), hosts=hosts)
    context.prepare()
    assert context.environment_key == environment["key"]
    return context, document


def test_evidence_of_one_host_keeps_its_keys(tmp_path: Path) -> None:
    catalog = load_catalog(CATALOGS / "embedded.yaml")
    context, document = measured_context(CATALOGS / "embedded-evidence.json.gz", catalog, tmp_path)
    keyed = [key_strategy(context, strategy) for strategy in catalog.strategies()]
    assert {(item.latency_key, item.accuracy_key, item.artifact_key) for item in keyed} == {
        (row["latency_key"], row["accuracy_key"], row["artifact_key"]) for row in document["strategies"]
    }


EXAMPLE = """
version: 1
subjects: {fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}
operators: {identity: [], quantized: [static_ptq]}
tiers:
  mobile: {cpus: 0.5, memory: 512m, provider: cpu}
  edge:   {cpus: 1,   memory: 1g,   provider: cpu}
  cloud:  {cpus: 2,   memory: 4g,   provider: [cuda, cpu]}
links: {mobile-edge: {bandwidth: 200mbit}, edge-cloud: {bandwidth: 10mbit}}
strategies: [{operators: [identity, quantized], placements: [mobile, edge, cloud]}]
experiment: {inputs: 30, select: random, seed: 1, rounds: 3, repetitions: 1, warmup: 1}
"""


def test_the_evidence_of_the_documentation_keeps_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was measured by the first protocol and with the first version of the quantization, which had one tool."""
    monkeypatch.setattr(StaticPtq, "version", 1)
    declared = StaticPtq.options
    monkeypatch.setattr(StaticPtq, "options", lambda self: {k: v for k, v in declared(self).items() if k != "tool"})
    (tmp_path / "strategies.yaml").write_text(EXAMPLE)
    catalog = load_catalog(tmp_path / "strategies.yaml")
    context, document = measured_context(CATALOGS.parent / "docs/example-evidence.json.gz", catalog, tmp_path)
    keyed = [key_strategy(context, strategy) for strategy in catalog.strategies()]
    assert {(item.latency_key, item.accuracy_key, item.artifact_key) for item in keyed} == {
        (row["latency_key"], row["accuracy_key"], row["artifact_key"]) for row in document["strategies"]
    }


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
    host._version.cache_clear()
    assert versions() == expected
