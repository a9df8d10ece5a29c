"""The records of the evidence that are made of a measurement, its verdict included."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, Literal, TypeVar, cast

from catalog.evidence.records import (
    AccuracyRecord,
    ArtifactFile,
    ArtifactRecord,
    ClassPixels,
    ItemHits,
    LinkBytes,
    LinkProbeRecord,
    MeasurementRecord,
    PartTimes,
    PoolInputRecord,
    PoolRecord,
    SampleRecord,
    TierRunRecord,
)
from catalog.statistics.input_draw import Pool, Stratum
from catalog.validity import judge_measurement, reason, worst
from runner.artifacts.store import CachedArtifact
from runner.errors import LaunchError, TierCallError, describe
from runner.launchers.base import TierLimits
from runner.measuring.experiment import ProbedLink, Protocol, RoundMeasurement, Setup
from runner.measuring.host_load import host_load
from runner.measuring.keyed_strategy import KeyedStrategy
from runner.operators.base import Pass
from runner.subjects.dataset import Metric
from tierserver.messages import EvaluateResult, ItemScore, Sample, StatsResult

_Number = TypeVar("_Number", int, float)


def tier_run(setup: Setup, measured: RoundMeasurement, tier: TierLimits) -> TierRunRecord:
    """Record a tier's limits and its use: in total, and between the end of the warm-up and the last sample."""
    loaded, warmed, ended = (moment.tiers[tier.name] for moment in (measured.loaded, measured.warmed, measured.ended))
    window = _Window(warmed, ended)
    return TierRunRecord(
        tier=tier.name,
        cpus=tier.cpus,
        memory_bytes=tier.memory_bytes,
        threads=tier.threads,
        provider=setup.providers[tier.name][0] if tier.name in setup.providers else "none",
        cold_start_s=measured.cold_start_s.get(tier.name),
        first_inference_s=_first_inference_s(measured, tier.name),
        peak_rss_bytes=ended.peak_rss_bytes,
        cpu_seconds=ended.cpu_seconds,
        periods=ended.cgroup.nr_periods if ended.cgroup else None,
        throttled_periods=ended.cgroup.nr_throttled if ended.cgroup else None,
        throttled_s=ended.cgroup.throttled_s if ended.cgroup else None,
        waited_s=ended.waited_s,
        major_faults=ended.major_faults,
        memory_limit_events=ended.memory.limit_events if ended.memory else None,
        oom_kills=ended.memory.oom_kills if ended.memory else None,
        memory_peak_bytes=ended.memory.peak_bytes if ended.memory else None,
        # An instance is drawn when a process starts, so a second one is another process.
        restarted=len({loaded.instance, warmed.instance, ended.instance}) > 1,
        window_cpu_seconds=window.grown(lambda stats: stats.cpu_seconds),
        window_periods=window.grown(lambda stats: stats.cgroup.nr_periods if stats.cgroup else None),
        window_throttled_periods=window.grown(lambda stats: stats.cgroup.nr_throttled if stats.cgroup else None),
        window_throttled_s=window.grown(lambda stats: stats.cgroup.throttled_s if stats.cgroup else None),
        window_waited_s=window.grown(lambda stats: stats.waited_s),
        window_major_faults=window.grown(lambda stats: stats.major_faults),
        window_memory_limit_events=window.grown(lambda stats: stats.memory.limit_events if stats.memory else None),
    )


@dataclass(frozen=True)
class _Window:
    """The counters of a tier at two moments, both totals since its start."""

    before: StatsResult
    after: StatsResult

    def grown(self, counter: Callable[[StatsResult], _Number | None]) -> _Number | None:
        """Return how much a counter grew; None where the tier has no such counter or started again in between."""
        if self.before.instance != self.after.instance:
            return None  # the second total began at zero: the difference would be negative, or small and wrong
        before, after = counter(self.before), counter(self.after)
        return None if before is None or after is None else after - before


def link_probes(probed: ProbedLink) -> tuple[LinkProbeRecord, LinkProbeRecord]:
    """Record both directions of one probe of a link."""
    return _link_probe(probed, "up"), _link_probe(probed, "down")


def _link_probe(probed: ProbedLink, direction: Literal["up", "down"]) -> LinkProbeRecord:
    timed = probed.timed(direction)
    return LinkProbeRecord(
        link=probed.link.name,
        direction=direction,
        declared_bit_per_s=probed.link.up_bit_per_s if direction == "up" else probed.link.down_bit_per_s,
        measured_bit_per_s=timed.rate_bit_per_s,
        rtt_s=probed.looks[-1].rtt_s,
        moment=probed.moment,
        tolerance=probed.tolerance,
        small_bytes=timed.small_bytes,
        large_bytes=timed.large_bytes,
        small_s=timed.small_s,
        large_s=timed.large_s,
        discarded_bit_per_s=probed.discarded_bit_per_s(direction),
    )


def clock_jump_s(measured: RoundMeasurement) -> float:
    """Return the largest change of a tier's wall clock against its monotonic one; slewing is small, a step is not."""
    jumps = [
        (ended.wall_s - loaded.wall_s) - (ended.monotonic_s - loaded.monotonic_s)
        for loaded, ended in zip(measured.loaded.tiers.values(), measured.ended.tiers.values(), strict=True)
        # A restarted process has another monotonic clock.
        if loaded.instance == ended.instance
    ]
    return max(jumps, key=abs, default=0.0)


def _first_inference_s(measured: RoundMeasurement, tier: str) -> float | None:
    """Return a tier's own time for the very first inference; None where it only relays."""
    # Without a warm-up the first sample is also the very first inference.
    for sample in (*measured.warmup, *measured.samples)[:1]:
        for part in sample.parts:
            if part.tier == tier and part.compute_s > 0:
                return part.preprocess_s + part.compute_s + part.postprocess_s
    return None


_LOG_TAIL_CHARACTERS = 4000


@dataclass(frozen=True)
class Attempt:
    """One attempt to measure one strategy in one round; `look`, `error_share` and `testbed` as stored."""

    keyed: KeyedStrategy
    environment_id: int
    round: int
    position: int
    seed: int
    started: datetime
    look: int | None = None
    error_share: float | None = None
    testbed: str | None = None


def passes(steps: Sequence[Pass]) -> list[dict[str, Any]]:
    """Return an operator's passes as the evidence stores them, with every option resolved."""
    return [{"name": step.name, "options": dict(step.options())} for step in steps]


def artifact(
    key: str, subject: str, operator: str, steps: Sequence[Pass], built: CachedArtifact | None, reason: str | None
) -> ArtifactRecord:
    """Record an artifact: ready, inapplicable (`built` has a reason), or failed (nothing was built)."""
    files = built.files if built else ()
    return ArtifactRecord(
        key=key,
        subject=subject,
        operator=operator,
        passes=passes(steps),
        status="failed" if built is None else "inapplicable" if built.inapplicable else "ready",
        reason=reason,
        files=[ArtifactFile(index, file.file, file.sha256, file.size_bytes) for index, file in enumerate(files)],
        size_bytes=built.size_bytes if built and not built.inapplicable else None,
        details=dict(built.details) if built else {},
    )


def failed(attempt: Attempt, error: Exception, took_s: float) -> MeasurementRecord:
    """Record a failed measurement with the reason and the end of the log."""
    return MeasurementRecord(
        **_attempted(attempt, took_s),
        status="failed",
        verdict="INVALID",
        reason=describe(error),
        log_tail=_log_tail(error) or None,
    )


def complete(
    attempt: Attempt,
    setup: Setup,
    protocol: Protocol,
    measured: RoundMeasurement,
    took_s: float,
    *,
    percentiles: Iterable[float] = (),
) -> MeasurementRecord:
    """Record a measurement with its samples, judged by every rule that looks at one measurement."""
    attempted = _attempted(attempt, took_s)
    attempted["protocol"]["provider_nodes"] = {tier: dict(nodes) for tier, nodes in measured.provider_nodes.items()}
    if measured.steady is not None:
        attempted["protocol"] |= {
            "warmup_inputs": [sample.input_id for sample in measured.warmup],
            "warmup_steady": measured.steady,
            "input_bytes": protocol.input_bytes,
        }
    record = MeasurementRecord(
        **attempted,
        status="complete",
        verdict="VALID",
        warmup_latency_s=[sample.latency_s for sample in measured.warmup],
        # Both moments by the client's clock: monotonic clocks of two machines have different zeros.
        window_s=measured.ended.client.monotonic_s - measured.warmed.client.monotonic_s,
        clock_jump_s=clock_jump_s(measured),
        probing_s=sum(probed.took_s for probed in measured.probed),
        host_load=host_load(measured.warmed, measured.ended),
        tier_runs=[tier_run(setup, measured, tier) for tier in setup.tiers],
        link_probes=[probe for probed in measured.probed for probe in link_probes(probed)],
        samples=_samples(attempt, measured.samples),
    )
    findings = judge_measurement(record, percentiles=percentiles)
    return replace(
        record,
        verdict=worst(findings),
        reason=reason(findings),
        # What is VALID can be judged again from the record at any time, so only the others are stored.
        findings=[finding.to_json() for finding in findings if finding.verdict != "VALID"],
    )


def accuracy(
    keyed: KeyedStrategy,
    environment_id: int,
    setup: Setup,
    result: EvaluateResult,
    started: datetime,
    *,
    took_s: float,
    metric: Metric,
    class_counts: Mapping[str, int] | None = None,
) -> AccuracyRecord:
    """Record an accuracy and its items."""
    items = result.items
    classified = items[0].top1 is not None
    return AccuracyRecord(
        key=keyed.accuracy_key,
        environment_id=environment_id,
        subject=keyed.strategy.subject,
        operator=keyed.strategy.operator,
        provider=_provider(setup),
        metric_primary=_metric(metric, classified=classified),
        items=len(items),
        status="complete",
        started_at=started,
        finished_at=started + timedelta(seconds=took_s),
        top1_pct=_answered_alike(items, classified=classified) if classified or metric == "agreement" else None,
        top5_pct=_share(item.top5 for item in items) if classified and metric == "accuracy" else None,
        miou_pct=mean_iou(items) if not classified and metric == "accuracy" else None,
        item_hits=[ItemHits(item.item_id, bool(item.top1), bool(item.top5)) for item in items if classified],
        class_pixels=[]
        if classified or metric == "agreement"
        else [pixels for item in items for pixels in _class_pixels(item)],
        class_counts=None if class_counts is None else dict(class_counts),
    )


def failed_accuracy(
    keyed: KeyedStrategy,
    environment_id: int,
    setup: Setup,
    error: Exception,
    started: datetime,
    *,
    took_s: float,
    metric: Metric,
) -> AccuracyRecord:
    """Record a failed accuracy with the reason and the end of the tier's log."""
    tail = _log_tail(error).strip()
    return AccuracyRecord(
        key=keyed.accuracy_key,
        environment_id=environment_id,
        subject=keyed.strategy.subject,
        operator=keyed.strategy.operator,
        provider=_provider(setup),
        # Without items only the kind of post-processing tells which accuracy it would have been.
        metric_primary="agreement"
        if metric == "agreement"
        else "miou"
        if setup.postprocess.kind == "label_map"
        else "top1",
        items=0,
        status="failed",
        started_at=started,
        finished_at=started + timedelta(seconds=took_s),
        reason=f"{describe(error)}\n{tail}" if tail else describe(error),
    )


def _log_tail(error: Exception) -> str:
    """Return the end of the log of the tier that an error is of; empty for other errors."""
    return error.log_tail[-_LOG_TAIL_CHARACTERS:] if isinstance(error, LaunchError | TierCallError) else ""


def _metric(metric: Metric, *, classified: bool) -> Literal["top1", "miou", "agreement"]:
    if metric == "agreement":
        return "agreement"
    return "top1" if classified else "miou"


def _provider(setup: Setup) -> str:
    """Return the execution provider, or those of the parts in order."""
    return "+".join(dict.fromkeys(setup.providers[name][0] for name in setup.placement))


def mean_iou(items: Sequence[ItemScore]) -> float:
    """Return summed intersections over summed unions per class, averaged over the occurring classes, in percent."""
    # A tier leaves out the classes above the highest one that occurs in an image.
    intersections = [sum(column) for column in zip_longest(*(item.intersections or () for item in items), fillvalue=0)]
    unions = [sum(column) for column in zip_longest(*(item.unions or () for item in items), fillvalue=0)]
    # A class that occurs nowhere has no ratio; counted as 0 it would lower the mean.
    ratios = [inner / outer for inner, outer in zip(intersections, unions, strict=True) if outer]
    return 100 * sum(ratios) / len(ratios)


def _answered_alike(items: Sequence[ItemScore], *, classified: bool) -> float:
    """Return the share of items with the right class, or of pixels with the right label, in percent."""
    if classified:
        return _share(item.top1 for item in items)
    # Each pixel is in one intersection, or in two unions.
    alike = sum(sum(item.intersections or ()) for item in items)
    pixels = (sum(sum(item.unions or ()) for item in items) + alike) / 2
    return 100 * alike / pixels


def _share(hits: Iterable[bool | None]) -> float:
    values = [bool(hit) for hit in hits]
    return 100 * sum(values) / len(values)


def _class_pixels(item: ItemScore) -> list[ClassPixels]:
    """Return the counts of the classes that occur in the image or in the answer."""
    pairs = zip(item.intersections or (), item.unions or (), strict=True)
    return [ClassPixels(item.item_id, label, inner, outer) for label, (inner, outer) in enumerate(pairs) if outer]


def _attempted(attempt: Attempt, took_s: float) -> dict[str, Any]:
    """Return the fields that complete and failed measurements have in common."""
    keyed, strategy = attempt.keyed, attempt.keyed.strategy
    return {
        "latency_key": keyed.latency_key,
        "environment_id": attempt.environment_id,
        "subject": strategy.subject,
        "operator": strategy.operator,
        "placement": strategy.placement.name,
        "round": attempt.round,
        "position": attempt.position,
        "seed": attempt.seed,
        "look": attempt.look,
        "error_share": attempt.error_share,
        "testbed": attempt.testbed,
        "inputs_select": keyed.inputs.select,
        "protocol": {"version": keyed.conditions["protocol_version"], **keyed.inputs.protocol(attempt.round)},
        "conditions": dict(keyed.conditions),
        "pool_key": None if keyed.inputs.pool is None else keyed.inputs.pool.digest,
        "pool": None if keyed.inputs.pool is None else pool_record(keyed.inputs.pool),
        "started_at": attempt.started,
        # By the monotonic clock's duration, because the wall clock may have been set in between.
        "finished_at": attempt.started + timedelta(seconds=took_s),
    }


def pool_record(pool: Pool) -> PoolRecord:
    """Record a pool with the sizes of its inputs."""
    unit = cast(Literal["bytes", "tokens", "elements"], pool.unit)
    inputs = [PoolInputRecord(entry.id, entry.size, entry.media or None) for entry in pool.inputs]
    return PoolRecord(pool.digest, unit, inputs)


def _samples(attempt: Attempt, samples: Iterable[Sample]) -> list[SampleRecord]:
    """Record samples with the strata that their inputs were drawn from."""
    strata = {entry.id: entry.stratum for entry in attempt.keyed.inputs.draw(attempt.round)}
    return [_sample(sample, strata.get(sample.input_id, "all")) for sample in samples]


def _sample(sample: Sample, stratum: Stratum) -> SampleRecord:
    """Record a sample; transmission is the rest of the latency after the tiers' own durations."""
    busy_s = sum(p.preprocess_s + p.compute_s + p.postprocess_s + p.serialise_s for p in sample.parts)
    return SampleRecord(
        seq=sample.seq,
        input_id=sample.input_id,
        repetition=sample.repetition,
        latency_s=sample.latency_s,
        # The durations come from several clocks, so their sum may exceed a short latency by rounding.
        transmission_s=max(0.0, sample.latency_s - busy_s),
        # A round of all inputs draws none: its rounds and inputs are crossed, as those of older evidence.
        stratum=None if stratum == "all" else stratum,
        parts=[PartTimes(**vars(part)) for part in sample.parts],
        links=[LinkBytes(**vars(link)) for link in sample.links],
    )
