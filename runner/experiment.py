"""One strategy in one round: fresh tiers, probes, warm-up, samples, counters, tear-down (DESIGN section 4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.artifacts import Artifact
from runner.launchers import Deployment, Launcher, LinkLimits, Mount, TierLimits
from tierserver.messages import (
    Codec,
    Evaluate,
    EvaluateResult,
    LinkProbe,
    Load,
    LoadResult,
    Measure,
    PartSpec,
    Postprocess,
    Preprocess,
    Probe,
    Sample,
    Stats,
    StatsResult,
)

# What a sample means: raised whenever the clock, the parts or the transport change, so that old latencies are missing.
PROTOCOL_VERSION = 1

# A probe's payloads take this long at the declared rate: long against scheduling noise, short against a measurement.
_PROBE_SMALL_S = 0.02
_PROBE_LARGE_S = 0.2
_PROBE_MINIMUM_BYTES = 4096
_LOAD_DEADLINE_S = 120.0
_STATS_DEADLINE_S = 10.0
_SAMPLE_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Setup:
    """Everything one measurement needs, resolved: nothing in here is looked up while it runs."""

    subject: str
    artifact: Artifact
    providers: Mapping[str, Sequence[str]]
    placement: Sequence[str]
    tiers: Sequence[TierLimits]
    links: Sequence[LinkLimits]
    preprocess: Preprocess
    postprocess: Postprocess
    codec: Codec = "raw"


@dataclass(frozen=True)
class Protocol:
    """How the inputs are sent."""

    inputs: Mapping[str, Path]
    inputs_key: str
    input_ids: Sequence[str]
    repetitions: int
    warmup: int


@dataclass(frozen=True)
class Measured:
    """What one round of one strategy gave."""

    samples: tuple[Sample, ...]
    probes: Mapping[str, LinkProbe]
    stats: Mapping[str, StatsResult]
    cold_start_s: Mapping[str, float]


def measure(
    launcher: Launcher,
    setup: Setup,
    protocol: Protocol,
    *,
    on_sample: Callable[[Sample], None] = lambda sample: None,
) -> Measured:
    """Measure one strategy once, on tiers of its own.

    Raises
    ------
    LaunchError, TierCallError, EngineUnavailableError
        When a tier does not come up, dies, or the engine goes away; nothing of the round is kept then.
    """
    client = setup.tiers[0].name
    mounts = _mounts(setup, client, protocol)
    with launcher.launch(setup.tiers, setup.links, mounts) as deployment:
        cold_start_s = _load_parts(deployment, setup)
        probes = {link.name: _probe(deployment, link) for link in setup.links}
        samples: list[Sample] = []

        def collect(event: Mapping[str, Any]) -> None:
            if event.get("event") == "sample":
                samples.append(Sample.from_json(event["sample"]))
                on_sample(samples[-1])

        first = setup.placement[0]
        command = Measure(
            model=setup.subject,
            url=None if first == client else deployment.url(client, first),
            inputs_dir=deployment.tiers[client].path("inputs"),
            input_ids=tuple(protocol.input_ids),
            repetitions=protocol.repetitions,
            warmup=protocol.warmup,
            codec=setup.codec,
        )
        inferences = (protocol.warmup + protocol.repetitions) * len(protocol.input_ids)
        deadline_s = _LOAD_DEADLINE_S + _SAMPLE_DEADLINE_S * inferences
        deployment.tiers[client].call(command.to_json(), on_event=collect, deadline_s=deadline_s)
        stats = {
            name: StatsResult.from_json(tier.call(Stats().to_json(), deadline_s=_STATS_DEADLINE_S))
            for name, tier in deployment.tiers.items()
        }
    return Measured(tuple(samples), probes, stats, cold_start_s)


def evaluate(
    launcher: Launcher,
    setup: Setup,
    *,
    items: Path,
    items_key: str,
    on_items: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluateResult:
    """Judge an artifact on every validation item, inside one tier."""
    tier = setup.tiers[0]
    mounts = {tier.name: [*_model_mounts(setup, setup.artifact.files), Mount("items", {items.name: items}, items_key)]}

    def progress(event: Mapping[str, Any]) -> None:
        if event.get("event") == "items":
            on_items(int(event["done"]), int(event["total"]))

    with launcher.launch([tier], [], mounts) as deployment:
        _load_parts(deployment, setup)
        running = deployment.tiers[tier.name]
        command = Evaluate(model=setup.subject, items_file=f"{running.path('items')}/{items.name}")
        return EvaluateResult.from_json(running.call(command.to_json(), on_event=progress, deadline_s=3600.0))


def _model_mounts(setup: Setup, files: Sequence[Any]) -> list[Mount]:
    return [Mount("model", {file.file: setup.artifact.directory / file.file for file in files}, setup.artifact.key)]


def _mounts(setup: Setup, client: str, protocol: Protocol) -> dict[str, list[Mount]]:
    """Each tier sees the parts it runs; the client's also the inputs."""
    mounts: dict[str, list[Mount]] = {tier.name: [] for tier in setup.tiers}
    for name in dict.fromkeys(setup.placement):
        mounts[name] += _model_mounts(setup, setup.artifact.files)
    mounts[client].append(Mount("inputs", protocol.inputs, protocol.inputs_key))
    return mounts


def _load_parts(deployment: Deployment, setup: Setup) -> dict[str, float]:
    """Create the ONNX Runtime sessions on their tiers, last part first, and give every relay its route."""
    threads = {tier.name: tier.threads for tier in setup.tiers}
    last = len(setup.placement) - 1
    cold_start_s: dict[str, float] = {}
    parts: dict[str, list[PartSpec]] = {tier.name: [] for tier in setup.tiers}
    for index, name in enumerate(setup.placement):
        following = None if index == last else deployment.url(name, setup.placement[index + 1])
        parts[name].append(
            PartSpec(
                name=setup.subject,
                path=f"{deployment.tiers[name].path('model')}/{setup.artifact.files[index].file}",
                threads=threads[name],
                providers=tuple(setup.providers[name]),
                preprocess=setup.preprocess if index == 0 else None,
                postprocess=setup.postprocess if index == last else None,
                next=following,
                codec=setup.codec,
            )
        )
    for name, tier in deployment.tiers.items():
        command = Load(parts=tuple(parts[name]), routes=deployment.routes(name))
        result = LoadResult.from_json(tier.call(command.to_json(), deadline_s=_LOAD_DEADLINE_S))
        if parts[name]:
            cold_start_s[name] = sum(result.cold_start_s.values())
    return cold_start_s


def _probe(deployment: Deployment, link: LinkLimits) -> LinkProbe:
    """Time a small and a large payload over the link, both ways."""
    slower = min(link.up_bit_per_s, link.down_bit_per_s)
    command = Probe(
        url=deployment.url(link.upstream, link.downstream),
        small_bytes=max(_PROBE_MINIMUM_BYTES, int(slower * _PROBE_SMALL_S / 8)),
        large_bytes=max(8 * _PROBE_MINIMUM_BYTES, int(slower * _PROBE_LARGE_S / 8)),
        repetitions=1,
    )
    return LinkProbe.from_json(deployment.tiers[link.upstream].call(command.to_json(), deadline_s=60.0))
