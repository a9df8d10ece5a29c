"""From what was measured to records of the evidence, verdict included."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, Literal

from catalog.evidence.records import (
    AccuracyRecord,
    ArtifactFile,
    ArtifactRecord,
    ClassPixels,
    ItemHits,
    LinkBytes,
    MeasurementRecord,
    PartTimes,
    SampleRecord,
)
from catalog.validity import judge_measurement, reason, worst
from runner import counters
from runner.artifacts.store import Artifact
from runner.errors import LaunchError, TierCallError
from runner.measuring.experiment import PROTOCOL_VERSION, Measured, Setup
from runner.measuring.host_load import host_load
from runner.measuring.plan import Keyed
from runner.operators import Pass
from runner.subjects import Metric
from tierserver.messages import EvaluateResult, ItemScore, Sample

_LOG_TAIL_CHARACTERS = 4000


@dataclass(frozen=True)
class Attempt:
    """One try at one strategy in one round."""

    keyed: Keyed
    environment_id: int
    round: int
    position: int
    seed: int
    started: datetime


def passes(steps: Sequence[Pass]) -> list[dict[str, Any]]:
    """An operator's passes as the evidence keeps them: every option resolved."""
    return [{"name": step.name, "options": dict(step.options())} for step in steps]


def artifact(
    key: str, subject: str, operator: str, steps: Sequence[Pass], built: Artifact | None, why: str | None
) -> ArtifactRecord:
    """An artifact: ready, inapplicable (built is a refusal), or failed (nothing was built)."""
    files = built.files if built else ()
    return ArtifactRecord(
        key=key,
        subject=subject,
        operator=operator,
        passes=passes(steps),
        status="failed" if built is None else "inapplicable" if built.inapplicable else "ready",
        reason=why,
        files=[ArtifactFile(index, each.file, each.sha256, each.size_bytes) for index, each in enumerate(files)],
        size_bytes=built.size_bytes if built and not built.inapplicable else None,
        details=built.details if built else {},
    )


def failed(attempt: Attempt, error: LaunchError | TierCallError, took_s: float) -> MeasurementRecord:
    """A measurement that came to nothing, with the reason and the end of the log."""
    return MeasurementRecord(
        **_attempted(attempt, took_s),
        status="failed",
        verdict="INVALID",
        reason=str(error),
        log_tail=error.log_tail[-_LOG_TAIL_CHARACTERS:] or None,
    )


def complete(
    attempt: Attempt, setup: Setup, measured: Measured, took_s: float, *, percentiles: Iterable[float] = ()
) -> MeasurementRecord:
    """A measurement with its samples, judged by every rule that needs it alone."""
    attempted = _attempted(attempt, took_s)
    attempted["protocol"]["provider_nodes"] = {tier: dict(nodes) for tier, nodes in measured.provider_nodes.items()}
    record = MeasurementRecord(
        **attempted,
        status="complete",
        verdict="VALID",
        warmup_latency_s=[sample.latency_s for sample in measured.warmup],
        window_s=measured.ended.client.monotonic_s - measured.warmed.client.monotonic_s,
        clock_jump_s=counters.clock_jump_s(measured),
        probing_s=sum(probed.took_s for probed in measured.probed),
        host_load=host_load(measured.warmed, measured.ended),
        tier_runs=[counters.tier_run(setup, measured, tier) for tier in setup.tiers],
        link_probes=[probe for probed in measured.probed for probe in counters.link_probes(probed)],
        samples=[_sample(sample) for sample in measured.samples],
    )
    findings = judge_measurement(record, percentiles=percentiles)
    return replace(
        record,
        verdict=worst(findings),
        reason=reason(findings),
        findings=[finding.to_json() for finding in findings if finding.verdict != "VALID"],
    )


def accuracy(
    keyed: Keyed,
    environment_id: int,
    setup: Setup,
    result: EvaluateResult,
    started: datetime,
    *,
    took_s: float,
    metric: Metric,
    class_counts: Mapping[str, int] | None = None,
) -> AccuracyRecord:
    """An accuracy and its items."""
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
        class_counts=class_counts,
    )


def failed_accuracy(
    keyed: Keyed,
    environment_id: int,
    setup: Setup,
    error: LaunchError | TierCallError,
    started: datetime,
    *,
    took_s: float,
    metric: Metric,
) -> AccuracyRecord:
    """An accuracy that came to nothing, with the reason and the end of the tier's log."""
    tail = error.log_tail[-_LOG_TAIL_CHARACTERS:].strip()
    return AccuracyRecord(
        key=keyed.accuracy_key,
        environment_id=environment_id,
        subject=keyed.strategy.subject,
        operator=keyed.strategy.operator,
        provider=_provider(setup),
        metric_primary="agreement"
        if metric == "agreement"
        else "miou"
        if setup.postprocess.kind == "label_map"
        else "top1",
        items=0,
        status="failed",
        started_at=started,
        finished_at=started + timedelta(seconds=took_s),
        reason=f"{error}\n{tail}" if tail else str(error),
    )


def _metric(metric: Metric, *, classified: bool) -> Literal["top1", "miou", "agreement"]:
    if metric == "agreement":
        return "agreement"
    return "top1" if classified else "miou"


def _provider(setup: Setup) -> str:
    """The execution provider, or those of the parts in order."""
    return "+".join(dict.fromkeys(setup.providers[name][0] for name in setup.placement))


def mean_iou(items: Sequence[ItemScore]) -> float:
    """Summed intersections over summed unions per class, averaged over the classes that occur, in percent."""
    # A tier leaves out the classes above the highest one it saw in an image.
    intersections = [sum(column) for column in zip_longest(*(item.intersections or () for item in items), fillvalue=0)]
    unions = [sum(column) for column in zip_longest(*(item.unions or () for item in items), fillvalue=0)]
    ratios = [inner / outer for inner, outer in zip(intersections, unions, strict=True) if outer]
    return 100 * sum(ratios) / len(ratios)


def _answered_alike(items: Sequence[ItemScore], *, classified: bool) -> float:
    """The share of items with the right class, or of pixels with the right label, in percent."""
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
    """Only the classes that occur in the image or in the answer."""
    pairs = zip(item.intersections or (), item.unions or (), strict=True)
    return [ClassPixels(item.item_id, label, inner, outer) for label, (inner, outer) in enumerate(pairs) if outer]


def _attempted(attempt: Attempt, took_s: float) -> dict[str, Any]:
    """What a complete and a failed measurement have in common."""
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
        "inputs_select": keyed.inputs_select,
        "protocol": {"version": PROTOCOL_VERSION, "input_ids": list(keyed.input_ids)},
        "conditions": dict(keyed.conditions),
        "started_at": attempt.started,
        "finished_at": attempt.started + timedelta(seconds=took_s),
    }


def _sample(sample: Sample) -> SampleRecord:
    """A sample; transmission is what the tiers' own durations leave of the latency."""
    busy_s = sum(p.preprocess_s + p.compute_s + p.postprocess_s + p.serialise_s for p in sample.parts)
    return SampleRecord(
        seq=sample.seq,
        input_id=sample.input_id,
        repetition=sample.repetition,
        latency_s=sample.latency_s,
        transmission_s=max(0.0, sample.latency_s - busy_s),
        parts=[PartTimes(**asdict(part)) for part in sample.parts],
        links=[LinkBytes(**asdict(link)) for link in sample.links],
    )
