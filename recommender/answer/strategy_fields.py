"""A measured strategy as it is sent; what does not depend on the question is made once per candidate."""

from collections.abc import Iterator, Mapping
from typing import TypedDict

import scipy

from recommender.evidence.model import Evidence, Known, SubjectEvidence
from recommender.ranking import Accuracy, Candidate, Estimate, estimate
from recommender.ranking.candidates import CandidateCache
from recommender.schemas import (
    AccuracyOut,
    AgreementOut,
    DistanceOut,
    EnvironmentOut,
    ImportedFileOut,
    LatencyOut,
    ResourcesOut,
    StrategyRow,
    SubjectRow,
)
from recommender.whatif.on_links import source_out

_TAIL = 0.025
SEPARATOR = ":"

_latencies: CandidateCache[LatencyOut] = CandidateCache()
_accuracies: CandidateCache[AccuracyOut] = CandidateCache()
_resource_uses: CandidateCache[ResourcesOut] = CandidateCache()


class StrategyFields(TypedDict):
    """What every place in an answer says of a strategy."""

    id: str
    operator: str
    placement: str
    latency: LatencyOut
    accuracy: AccuracyOut | None
    distance: DistanceOut | None
    size_bytes: int | None
    sent_bytes: float | None
    resources: ResourcesOut
    pareto: bool
    verdicts: Mapping[str, int]
    latency_evidence_id: str | None
    accuracy_evidence_id: str | None
    artifact_sha256: Mapping[str, str]


def strategy_id(subject: str, operator: str, placement: str) -> str:
    """`fashion-resnet:quantized:edge`; names in a catalog file hold no colon."""
    return SEPARATOR.join((subject, operator, placement))


def strategy_fields(subject: str, known: Known, each: Estimate, *, pareto: bool) -> StrategyFields:
    """The fields of a considered strategy."""
    candidate = each.candidate
    return {
        "id": strategy_id(subject, known.operator, known.placement),
        "operator": candidate.operator,
        "placement": candidate.placement,
        "latency": latency_out(each),
        "accuracy": accuracy_of(candidate),
        "distance": distance_of(candidate),
        "size_bytes": candidate.size_bytes,
        "sent_bytes": candidate.sent_bytes,
        "resources": _resource_uses.get(candidate, None, lambda: _resources(candidate)),
        "pareto": pareto,
        "verdicts": known.verdicts,
        "latency_evidence_id": known.latency_evidence_id,
        "accuracy_evidence_id": known.accuracy_evidence_id,
        "artifact_sha256": known.artifact_sha256,
    }


def latency_out(each: Estimate) -> LatencyOut:
    """A candidate's latency at the asked percentile."""
    return _latencies.get(each.candidate, each.percentile, lambda: _latency(each))


def _latency(each: Estimate) -> LatencyOut:
    return LatencyOut(
        median_s=each.median_s,
        percentile=each.percentile,
        percentile_s=each.percentile_s,
        low_s=each.interval.low_s,
        high_s=each.interval.high_s,
        percentile_s_by_round=list(each.percentile_s_by_round),
        rounds=each.candidate.rounds,
        inputs=each.candidate.inputs,
        samples=each.candidate.samples,
        predicted=each.candidate.predicted is not None,
        predicted_from=source_out(each.candidate.predicted),
    )


def accuracy_of(candidate: Candidate) -> AccuracyOut | None:
    """A candidate's accuracy with its 95 % intervals."""
    it = candidate.accuracy
    return None if it is None else _accuracies.get(candidate, None, lambda: _accuracy(it))


def distance_of(candidate: Candidate) -> DistanceOut | None:
    """Return how far a candidate's outputs are from identity's; None for identity, and where it was not measured."""
    distance = candidate.distance
    if distance is None or not candidate.changed:
        return None
    alike = distance.agreement
    return DistanceOut(
        inputs=distance.inputs,
        source=distance.source,
        relative_error=distance.relative_error,
        cosine=distance.cosine,
        finite=distance.finite,
        agreement=None
        if alike is None
        else AgreementOut(agreeing=alike.agreeing, items=alike.items, low=alike.low, high=alike.high),
        warning=distance.warning,
    )


def _accuracy(it: Accuracy) -> AccuracyOut:
    low, high = _interval(it)
    return AccuracyOut(
        metric=it.metric,
        accuracy_pct=it.accuracy_pct,
        low_pct=low,
        high_pct=high,
        drop_pp=it.drop_pp,
        drop_low_pp=it.drop.low_pp if it.drop else None,
        drop_high_pp=it.drop.high_pp if it.drop else None,
        items=it.items,
        remark=it.remark,
    )


def _interval(it: Accuracy) -> tuple[float | None, float | None]:
    """Clopper and Pearson's for hits; for mIoU the bootstrap's, from the drop against a flawless reference."""
    if it.short is not None:
        return 100 - it.short.high_pp, 100 - it.short.low_pp
    if it.hits is None:
        return None, None
    right, items = int(it.hits.sum()), it.hits.size
    low = scipy.special.betaincinv(right, items - right + 1, _TAIL) if right else 0.0
    high = scipy.special.betaincinv(right + 1, items - right, 1 - _TAIL) if right < items else 1.0
    return 100 * float(low), 100 * float(high)


def _resources(candidate: Candidate) -> ResourcesOut:
    return ResourcesOut(
        memory_bytes=dict(candidate.memory_bytes),
        model_bytes=dict(candidate.model_bytes),
        cpu_s=dict(candidate.cpu_s),
    )


DEFAULT_PERCENTILE = 90.0


def strategy_rows(part: SubjectEvidence) -> Iterator[StrategyRow]:
    """Every declared strategy of a subject in one environment, measured or not."""
    for known in part.strategies:
        found = estimate(known.candidate, DEFAULT_PERCENTILE) if known.candidate is not None else None
        yield StrategyRow(
            subject=part.subject,
            operator=known.operator,
            placement=known.placement,
            environment=part.environment.key,
            status=_status(known),
            reason=known.reason,
            latency=latency_out(found) if found else None,
            accuracy=accuracy_of(found.candidate) if found else None,
            distance=distance_of(found.candidate) if found else None,
            size_bytes=found.candidate.size_bytes if found else None,
            sent_bytes=found.candidate.sent_bytes if found else None,
        )


def subject_row(evidence: Evidence, subject: str) -> SubjectRow:
    """How far the evidence of a subject goes, in its default environment and the others."""
    part = evidence.select(subject)
    return SubjectRow(
        subject=subject,
        task=part.task,
        strategies=len(part.strategies),
        measured=len(part.candidates),
        environments=[environment_out(each) for each in evidence.subjects[subject]],
    )


def environment_out(part: SubjectEvidence) -> EnvironmentOut:
    """The environment of an answer, as told to clients."""
    it = part.environment
    return EnvironmentOut(
        key=it.key,
        launcher=it.launcher,
        scale=it.scale,
        host=it.host,
        cpu_model=it.cpu_model,
        cpu_count=it.cpu_count,
        onnxruntime=it.onnxruntime,
        measured_at=part.last_measured_at,
        imported_from=it.imported_from,
        imported_files=[ImportedFileOut(name=file.name, sha256=file.sha256) for file in it.imported_files],
        complete=part.complete,
    )


def _status(known: Known) -> str:
    if not known.applicable:
        return "inapplicable"
    if known.candidate is None:
        return "missing"
    return "complete" if known.complete else "partial"
