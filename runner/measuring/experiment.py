"""One strategy in one round: fresh tiers, probes, warm-up, samples, counters, tear-down.

Counters are read at three moments: when the parts are loaded, when the warm-up is over, and after the last sample. What
lies between the last two belongs to the measured samples alone.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from runner.artifacts.store import CachedArtifact
from runner.errors import ChangedFilesError
from runner.launchers.base import Deployment, Launcher, LinkLimits, Mount, TierLimits
from runner.measuring.host_load import Snapshot, processes
from tierserver.messages import (
    MOST_WARMUP_INFERENCES,
    Codec,
    Digest,
    DigestResult,
    Evaluate,
    EvaluateResult,
    LinkProbe,
    Load,
    LoadResult,
    Measure,
    MeasureResult,
    PartSpec,
    Postprocess,
    Preprocess,
    Probe,
    ProbeDirection,
    Sample,
    Stats,
    StatsResult,
    SteadyWarmup,
)

Moment = Literal["before", "after"]

# The first look at a link takes as long as its launcher says; each further one takes twice as long as the one before.
# One look may be spoiled by a moment's load; a link that is really off stays off.
_LOOKS = 4
# At low rates a frame takes milliseconds, and a rate is computed from some frames that follow one another.
_FRAME_BYTES = 1448
_LOOK_FRAMES = 16
# A transfer starts with what the link lets through for free (1.3 ms of its rate, see `runner.launchers.shaping`), and
# with TCP's slow start until as much is under way as the delay takes. Neither is timed.
_START_FRAMES = 4
_START_S = 0.003
_START_ROUND_TRIPS = 3
# Only the longest looks have the whole tolerance: a single one leaves half of it to its own error.
_SHORT_LOOK_TOLERANCE = 0.5
# A real link is looked at three times: the middle one stands, and the others say how much its rate varies. Each is long
# beside the pauses of a radio link, which are some ten milliseconds.
_REAL_LOOKS = 3
_REAL_LOOK_S = 0.1
# A transfer within one machine has no rate; at this one a look is 25 MB.
_FASTEST_BIT_PER_S = 2_000_000_000
# A deadline only ends calls that hang; three probes of the slowest link take far less.
_DEADLINE_S = 300.0


@dataclass(frozen=True)
class ProbedLink:
    """The looks at a link at one moment, and the time of all.

    Of an emulated link each is twice as long as the one before. A real one has no tolerance: its looks are alike.
    """

    link: LinkLimits
    tolerance: float | None
    moment: Moment
    looks: Sequence[LinkProbe]
    took_s: float

    def timed(self, direction: Literal["up", "down"]) -> ProbeDirection:
        """Return the look that stands: the last one, or of two long ones the one farther from the declared rate.

        A sender that stalls makes a link that is too fast look right, though hardly twice. A real link carries what it
        carries: of its looks, the one of the middle rate.
        """
        if self.tolerance is None:
            return sorted(self._directions(direction), key=lambda timed: timed.rate_bit_per_s)[len(self.looks) // 2]
        declared = self.link.up_bit_per_s if direction == "up" else self.link.down_bit_per_s
        standing = self._directions(direction)[-2 if len(self.looks) == _LOOKS else -1 :]
        return max(standing, key=lambda timed: abs(timed.rate_bit_per_s / declared - 1))

    def discarded_bit_per_s(self, direction: Literal["up", "down"]) -> list[float]:
        """Return the rates of the other looks."""
        standing = self.timed(direction)
        return [timed.rate_bit_per_s for timed in self._directions(direction) if timed is not standing]

    def _directions(self, direction: Literal["up", "down"]) -> list[ProbeDirection]:
        return [look.up if direction == "up" else look.down for look in self.looks]


def probe_link(deployment: Deployment, link: LinkLimits, *, tolerance: float, moment: Moment) -> ProbedLink:
    """Time a transfer over the link, both ways; repeat it up to three times, doubled, where it is out of tolerance."""
    if link.real:
        return _probe_real_link(deployment, link, moment)
    looks: list[LinkProbe] = []
    started = time.monotonic()
    while len(looks) < _LOOKS:
        looks.append(_look(deployment, link, deployment.shortest_look_s * 2 ** len(looks)))
        rates = (looks[-1].up.rate_bit_per_s, looks[-1].down.rate_bit_per_s)
        if _within(rates, link, tolerance * _SHORT_LOOK_TOLERANCE):
            break
    return ProbedLink(link, tolerance, moment, looks, time.monotonic() - started)


def _look(deployment: Deployment, link: LinkLimits, look_s: float) -> LinkProbe:
    command = look_command(deployment.url(link.upstream, link.downstream), link, look_s)
    return LinkProbe.from_json(deployment.tiers[link.upstream].call(command.to_json(), deadline_s=_DEADLINE_S))


def _probe_real_link(deployment: Deployment, link: LinkLimits, moment: Moment) -> ProbedLink:
    """Time several transfers over a link that is what it is; their spread is part of what is recorded."""
    started = time.monotonic()
    # The declared rate is only what the user expects: the first look finds the size of the others.
    first = _look(deployment, link, deployment.shortest_look_s)
    carried = replace(
        link,
        up_bit_per_s=min(_FASTEST_BIT_PER_S, max(1, round(first.up.rate_bit_per_s))),
        down_bit_per_s=min(_FASTEST_BIT_PER_S, max(1, round(first.down.rate_bit_per_s))),
        delay_s=first.rtt_s / 2,
    )
    looks = [_look(deployment, carried, _REAL_LOOK_S) for _ in range(_REAL_LOOKS)]
    return ProbedLink(link, None, moment, looks, time.monotonic() - started)


def _within(rates: tuple[float, float], link: LinkLimits, tolerance: float) -> bool:
    declared_rates = (link.up_bit_per_s, link.down_bit_per_s)
    # Relative to the declared rate: a link that is too fast is as wrong as one that is too slow.
    return all(abs(rate / declared - 1) <= tolerance for rate, declared in zip(rates, declared_rates, strict=True))


def look_command(url: str, link: LinkLimits, look_s: float) -> Probe:
    """Return the command of one look, whose bytes are chosen for each direction by its own rate."""
    start_s = _START_S + _START_ROUND_TRIPS * 2 * link.delay_s
    start_up, start_down = (
        _bytes(link.up_bit_per_s, start_s, _START_FRAMES),
        _bytes(link.down_bit_per_s, start_s, _START_FRAMES),
    )
    return Probe(
        url=url,
        small_bytes=start_up,
        large_bytes=start_up + _bytes(link.up_bit_per_s, look_s, _LOOK_FRAMES),
        down_small_bytes=start_down,
        down_large_bytes=start_down + _bytes(link.down_bit_per_s, look_s, _LOOK_FRAMES),
        repetitions=1,
    )


def _bytes(bit_per_s: int, seconds: float, least_frames: int) -> int:
    # Eight bits to a byte: the payload that takes so long at the declared rate.
    return max(least_frames * _FRAME_BYTES, int(bit_per_s * seconds / 8))


# Raised whenever the clock, the parts or the transport change the meaning of a sample: old latencies are then missing.
PROTOCOL_VERSION = 1

# Deadlines, too, of calls that hang: a small tier may take long to open a large model.
_LOAD_DEADLINE_S = 120.0
_STATS_DEADLINE_S = 10.0
_SAMPLE_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Setup:
    """Everything that one measurement needs, resolved beforehand: nothing is looked up while it runs."""

    subject: str
    artifact: CachedArtifact
    providers: Mapping[str, Sequence[str]]
    placement: Sequence[str]
    tiers: Sequence[TierLimits]
    links: Sequence[LinkLimits]
    tolerances: Mapping[str, float]
    preprocess: Preprocess
    postprocess: Postprocess
    codec: Codec = "raw"


@dataclass(frozen=True)
class Protocol:
    """How the inputs are sent; `sha256` are the digests of their files, `warmup` counts passes over them."""

    inputs: Mapping[str, Path]
    inputs_key: str
    input_ids: Sequence[str]
    repetitions: int
    warmup: int | Literal["steady"]
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def input_bytes(self) -> dict[str, int]:
        """The size of each input's file."""
        return {input_id: self.inputs[input_id].stat().st_size for input_id in self.input_ids}

    @property
    def expected_inferences(self) -> int:
        """How many inferences a round takes, for its progress: how long a steady warm-up takes is known afterwards."""
        warmup = MOST_WARMUP_INFERENCES if self.warmup == "steady" else self.warmup * len(self.input_ids)
        return warmup + self.repetitions * len(self.input_ids)

    def steady_warmup(self) -> SteadyWarmup | None:
        """Return the inputs of a warm-up until steady: the largest, then the middle one by size; None for passes."""
        if self.warmup != "steady":
            return None
        sizes = self.input_bytes
        by_size = sorted(self.input_ids, key=lambda input_id: (sizes[input_id], input_id))
        return SteadyWarmup(first=by_size[-1], repeated=by_size[(len(by_size) - 1) // 2])


@dataclass(frozen=True)
class ItemsFile:
    """The file of validation items, its content key and the SHA-256 of its bytes."""

    path: Path
    key: str
    sha256: str


@dataclass(frozen=True)
class RoundMeasurement:
    """The result of one round of one strategy; `probed` has every link twice, before and after the samples.

    `steady` is whether a warm-up until steady ended so; None after one of whole passes.
    """

    warmup: tuple[Sample, ...]
    steady: bool | None
    samples: tuple[Sample, ...]
    probed: tuple[ProbedLink, ...]
    loaded: Snapshot
    warmed: Snapshot
    ended: Snapshot
    cold_start_s: Mapping[str, float]
    provider_nodes: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class _LoadedParts:
    """Per tier that runs a part: seconds to create its sessions, and graph nodes per execution provider."""

    cold_start_s: Mapping[str, float]
    provider_nodes: Mapping[str, Mapping[str, int]]


def measure(
    launcher: Launcher,
    setup: Setup,
    protocol: Protocol,
    *,
    on_sample: Callable[[Sample], None] = lambda sample: None,
) -> RoundMeasurement:
    """Measure one strategy once, on fresh tiers.

    Raises
    ------
    LaunchError, TierCallError, EngineUnavailableError
        When a tier does not start, dies or reads other bytes than it should (ChangedFilesError), or the engine goes
        away; nothing of the round is kept then.
    """
    client = setup.tiers[0].name
    mounts = _mounts(setup, client, protocol)
    with launcher.launch(setup.tiers, setup.links, mounts) as deployment:
        _check_mounts(deployment, mounts)
        parts = _load_parts(deployment, setup)
        loaded = _snapshot(deployment)
        # Links are probed before the warm-up and after the samples, so that probing disturbs neither.
        before = _probe_links(deployment, setup, "before")
        warmup = _warm_up(deployment, setup, protocol, on_sample)
        warmed = _snapshot(deployment)
        measured = _send(deployment, setup, protocol, Passes(repetitions=protocol.repetitions), on_sample)
        ended = _snapshot(deployment)
        after = _probe_links(deployment, setup, "after")
    probed = (*before, *after)
    return RoundMeasurement(
        warmup=warmup.samples,
        steady=warmup.steady,
        samples=measured.samples,
        probed=probed,
        loaded=loaded,
        warmed=warmed,
        ended=ended,
        cold_start_s=parts.cold_start_s,
        provider_nodes=parts.provider_nodes,
    )


@dataclass(frozen=True)
class Passes:
    """What one command sends: passes over all inputs that are samples, or that warm up, or a warm-up until steady."""

    repetitions: int = 0
    warmup: int = 0
    steady: SteadyWarmup | None = None


@dataclass(frozen=True)
class _SentSamples:
    samples: tuple[Sample, ...]
    steady: bool | None = None


def _warm_up(
    deployment: Deployment, setup: Setup, protocol: Protocol, on_sample: Callable[[Sample], None]
) -> _SentSamples:
    if protocol.warmup == "steady":
        return _send(deployment, setup, protocol, Passes(steady=protocol.steady_warmup()), on_sample)
    # A catalog may declare no warm-up at all.
    return _send(deployment, setup, protocol, Passes(warmup=protocol.warmup), on_sample)


def _send(
    deployment: Deployment, setup: Setup, protocol: Protocol, passes: Passes, on_sample: Callable[[Sample], None]
) -> _SentSamples:
    """Send inputs through the client's tier; samples come one by one, a warm-up comes back in one answer."""
    if passes == Passes():
        return _SentSamples(())
    client, first = setup.tiers[0].name, setup.placement[0]
    command = Measure(
        model=setup.subject,
        url=None if first == client else deployment.url(client, first),
        inputs_dir=deployment.tiers[client].path("inputs"),
        input_ids=tuple(protocol.input_ids),
        repetitions=passes.repetitions,
        warmup=passes.warmup,
        steady=passes.steady,
        codec=setup.codec,
    )
    samples: list[Sample] = []

    def collect(event: Mapping[str, Any]) -> None:
        if event.get("event") == "sample":
            samples.append(Sample.from_json(event["sample"]))
            on_sample(samples[-1])

    # Generous: a deadline only ends calls that hang.
    inferences = (passes.repetitions + passes.warmup) * len(protocol.input_ids) + MOST_WARMUP_INFERENCES
    deadline_s = _LOAD_DEADLINE_S + _SAMPLE_DEADLINE_S * inferences
    answer = deployment.tiers[client].call(command.to_json(), on_event=collect, deadline_s=deadline_s)
    result = MeasureResult.from_json(answer)
    for sample in result.warmup:
        on_sample(sample)
    return _SentSamples((*result.warmup, *samples), result.steady)


def _snapshot(deployment: Deployment) -> Snapshot:
    tiers = {
        name: StatsResult.from_json(tier.call(Stats().to_json(), deadline_s=_STATS_DEADLINE_S))
        for name, tier in deployment.tiers.items()
    }
    return Snapshot(tiers, processes())


def _probe_links(deployment: Deployment, setup: Setup, moment: Moment) -> tuple[ProbedLink, ...]:
    """Probe links at once that begin at different tiers: each is shaped by itself; a tier sends to one at a time."""

    def probed_from(tier: str) -> list[ProbedLink]:
        links = [link for link in setup.links if link.upstream == tier]
        return [probe_link(deployment, link, tolerance=setup.tolerances[link.name], moment=moment) for link in links]

    upstream = list(dict.fromkeys(link.upstream for link in setup.links))
    if not upstream:
        return ()
    with ThreadPoolExecutor(len(upstream)) as pool:
        return tuple(itertools.chain.from_iterable(pool.map(probed_from, upstream)))


def evaluate(
    launcher: Launcher,
    setup: Setup,
    *,
    items: ItemsFile,
    on_items: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluateResult:
    """Judge an artifact on every validation item, from inside the tier of its first part."""
    first = setup.placement[0]
    mounts = {name: [_model_mount(setup)] for name in setup.placement}
    name = items.path.name
    mounts[first].append(Mount("items", {name: items.path}, items.key, {name: items.sha256}))

    def progress(event: Mapping[str, Any]) -> None:
        if event.get("event") == "items":
            on_items(int(event["done"]), int(event["total"]))

    with launcher.launch(setup.tiers, setup.links, mounts) as deployment:
        _check_mounts(deployment, mounts)
        _load_parts(deployment, setup)
        tier = deployment.tiers[first]
        path = f"{tier.path('items')}/{name}"
        command = Evaluate(model=setup.subject, items_file=path, k=setup.postprocess.k)
        return EvaluateResult.from_json(tier.call(command.to_json(), on_event=progress, deadline_s=3600.0))


def _model_mount(setup: Setup) -> Mount:
    files = setup.artifact.files
    paths = {file.file: setup.artifact.directory / file.file for file in files}
    return Mount("model", paths, setup.artifact.key, {file.file: file.sha256 for file in files}, has_parts=True)


def _mounts(setup: Setup, client: str, protocol: Protocol) -> dict[str, list[Mount]]:
    """Mount the parts in the tiers that run them, and the inputs in the client's tier."""
    mounts: dict[str, list[Mount]] = {tier.name: [] for tier in setup.tiers}
    for name in dict.fromkeys(setup.placement):
        mounts[name].append(_model_mount(setup))
    mounts[client].append(Mount("inputs", protocol.inputs, protocol.inputs_key, protocol.sha256))
    return mounts


def _check_mounts(deployment: Deployment, mounts: Mapping[str, Sequence[Mount]]) -> None:
    """Let every tier hash the files it is going to read; raise ChangedFilesError where one differs."""

    def check(name: str) -> None:
        tier = deployment.tiers[name]
        for mount in mounts[name]:
            expected = {f"{tier.path(mount.name)}/{file}": digest for file, digest in mount.sha256.items()}
            answer = tier.call(Digest(tuple(expected)).to_json(), deadline_s=_LOAD_DEADLINE_S)
            read = DigestResult.from_json(answer).sha256
            _refuse_changed(name, mount, [path for path, digest in expected.items() if read.get(path) != digest])

    with ThreadPoolExecutor(len(mounts)) as pool:
        list(pool.map(check, mounts))


def _refuse_changed(tier: str, mount: Mount, paths: Sequence[str]) -> None:
    if paths:
        files = ", ".join(Path(path).name for path in paths[:3])
        raise ChangedFilesError(
            f"tier {tier!r} reads other bytes than were made for {mount.name} {mount.key[:12]}…: {files}", mount.name
        )


def _load_parts(deployment: Deployment, setup: Setup) -> _LoadedParts:
    """Create the ONNX Runtime sessions on their tiers, last part first, and give every relay its route."""
    threads = {tier.name: tier.threads for tier in setup.tiers}
    last = len(setup.placement) - 1
    cold_start_s: dict[str, float] = {}
    provider_nodes: dict[str, dict[str, int]] = {}
    parts: dict[str, list[PartSpec]] = {tier.name: [] for tier in setup.tiers}
    mount = _model_mount(setup)
    # The placement is the order of the parts; only the last one has no next part to send to.
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
        # A tier without parts relays and loads nothing, so that it has no cold start.
        if parts[name]:
            _refuse_changed(name, mount, [part.path for part in parts[name] if not _is_loaded(part, mount, result)])
            cold_start_s[name] = sum(result.cold_start_s.values())
            provider_nodes[name] = dict(sum(map(Counter, result.provider_nodes.values()), Counter()))
    return _LoadedParts(cold_start_s, provider_nodes)


def _is_loaded(part: PartSpec, mount: Mount, result: LoadResult) -> bool:
    """Return whether the file that a tier loaded is the artifact's."""
    return result.model_sha256.get(part.name) == mount.sha256[Path(part.path).name]
