"""A measured strategy as it is sent; what does not depend on the question is made once per candidate."""

from collections.abc import Iterator, Mapping
from typing import TypedDict
from weakref import WeakKeyDictionary

import scipy

from catalog.evidence.records import EnvironmentSummary, FileSummary, values_of
from catalog.output_distance import OutputDistance
from recommender.evidence.model import DeclaredStrategy, Evidence, SubjectEvidence
from recommender.ranking import AccuracyMeasurement, Candidate, Estimate, estimate
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

# Of each side of a two-sided 95 % interval.
_TAIL = 0.025
SEPARATOR = ":"

_latencies: CandidateCache[LatencyOut] = CandidateCache()
_accuracies: CandidateCache[AccuracyOut] = CandidateCache()
_distances: CandidateCache[DistanceOut] = CandidateCache()
_measured_fields: CandidateCache["MeasuredFields"] = CandidateCache()
# As long as the snapshot of the evidence.
_environments: WeakKeyDictionary[SubjectEvidence, EnvironmentOut] = WeakKeyDictionary()


class MeasuredFields(TypedDict):
    """What the measurements of a strategy say; no budget changes it."""

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


class StrategyFields(MeasuredFields):
    """What every place in an answer says of a strategy."""

    verdicts: Mapping[str, int]
    latency_evidence_id: str | None
    accuracy_evidence_id: str | None
    artifact_sha256: Mapping[str, str]


def strategy_id(subject: str, operator: str, placement: str) -> str:
    """Return an id such as `fashion-resnet:quantized:edge`; names in a catalog file contain no colon."""
    return SEPARATOR.join((subject, operator, placement))


def strategy_fields(subject: str, strategy: DeclaredStrategy, estimate: Estimate, *, pareto: bool) -> StrategyFields:
    """Return the fields of a considered strategy."""
    key = subject, estimate.percentile, pareto
    measured = _measured_fields.get(estimate.candidate, key, lambda: _measured(subject, estimate, pareto=pareto))
    # Not kept with the candidate: after a reload it may belong to a strategy of which more is known.
    return {
        **measured,
        "verdicts": strategy.verdicts,
        "latency_evidence_id": strategy.latency_evidence_id,
        "accuracy_evidence_id": strategy.accuracy_evidence_id,
        "artifact_sha256": strategy.artifact_sha256,
    }


def _measured(subject: str, estimate: Estimate, *, pareto: bool) -> MeasuredFields:
    candidate = estimate.candidate
    return {
        "id": strategy_id(subject, candidate.operator, candidate.placement),
        "operator": candidate.operator,
        "placement": candidate.placement,
        "latency": latency_out(estimate),
        "accuracy": accuracy_of(candidate),
        "distance": distance_of(candidate),
        "size_bytes": candidate.size_bytes,
        "sent_bytes": candidate.sent_bytes,
        "resources": _resources(candidate),
        "pareto": pareto,
    }


def latency_out(estimate: Estimate) -> LatencyOut:
    """Return a candidate's latency at the percentile of the question."""
    return _latencies.get(estimate.candidate, estimate.percentile, lambda: _latency(estimate))


def _latency(estimate: Estimate) -> LatencyOut:
    return LatencyOut(
        median_s=estimate.median_s,
        percentile=estimate.percentile,
        percentile_s=estimate.percentile_s,
        low_s=estimate.interval.low_s,
        high_s=estimate.interval.high_s,
        percentile_s_by_round=list(estimate.percentile_s_by_round),
        rounds=estimate.candidate.rounds,
        inputs=estimate.candidate.inputs,
        samples=estimate.candidate.samples,
        predicted=estimate.candidate.predicted is not None,
        predicted_from=source_out(estimate.candidate.predicted),
    )


def accuracy_of(candidate: Candidate) -> AccuracyOut | None:
    """Return a candidate's accuracy with its 95 % intervals."""
    accuracy = candidate.accuracy
    # Under one key: an accuracy is the same whatever the question is.
    return None if accuracy is None else _accuracies.get(candidate, None, lambda: _accuracy(accuracy))


def distance_of(candidate: Candidate) -> DistanceOut | None:
    """Return how far a candidate's outputs are from identity's; None for identity, and where it was not measured."""
    distance = candidate.distance
    if distance is None or not candidate.changed:
        return None
    return _distances.get(candidate, None, lambda: _distance(distance))


def _distance(distance: OutputDistance) -> DistanceOut:
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


def _accuracy(accuracy: AccuracyMeasurement) -> AccuracyOut:
    low, high = _accuracy_interval(accuracy)
    return AccuracyOut(
        metric=accuracy.metric,
        accuracy_pct=accuracy.accuracy_pct,
        low_pct=low,
        high_pct=high,
        drop_pp=accuracy.drop_pp,
        drop_low_pp=accuracy.drop.low_pp if accuracy.drop else None,
        drop_high_pp=accuracy.drop.high_pp if accuracy.drop else None,
        items=accuracy.items,
        remark=accuracy.remark,
    )


def _accuracy_interval(accuracy: AccuracyMeasurement) -> tuple[float | None, float | None]:
    """Return Clopper and Pearson's interval for hits; for mIoU the bootstrap's, against a flawless reference."""
    if accuracy.short is not None:
        # The accuracy is 100 less what the flawless reference is ahead, so the ends change places.
        return 100 - accuracy.short.high_pp, 100 - accuracy.short.low_pp
    if accuracy.hits is None:
        return None, None
    right, items = int(accuracy.hits.sum()), accuracy.hits.size
    # Clopper and Pearson (Biometrika 26, 1934): beta quantiles, which do not exist where none or all are right.
    low = scipy.special.betaincinv(right, items - right + 1, _TAIL) if right else 0.0
    high = scipy.special.betaincinv(right + 1, items - right, 1 - _TAIL) if right < items else 1.0
    return 100 * float(low), 100 * float(high)


def _resources(candidate: Candidate) -> ResourcesOut:
    return ResourcesOut(
        memory_bytes=dict(candidate.memory_bytes),
        model_bytes=dict(candidate.model_bytes),
        cpu_s=dict(candidate.cpu_s),
    )


# The default of a question (`RecommendRequest.latency_percentile`).
DEFAULT_PERCENTILE = 90.0


def strategy_rows(subject_evidence: SubjectEvidence) -> Iterator[StrategyRow]:
    """Yield every declared strategy of a subject in one environment, measured or not."""
    for strategy in subject_evidence.strategies:
        measured = estimate(strategy.candidate, DEFAULT_PERCENTILE) if strategy.candidate is not None else None
        yield StrategyRow(
            subject=subject_evidence.subject,
            operator=strategy.operator,
            placement=strategy.placement,
            environment=subject_evidence.environment.key,
            status=_status(strategy),
            reason=strategy.reason,
            latency=latency_out(measured) if measured else None,
            accuracy=accuracy_of(measured.candidate) if measured else None,
            distance=distance_of(measured.candidate) if measured else None,
            size_bytes=measured.candidate.size_bytes if measured else None,
            sent_bytes=measured.candidate.sent_bytes if measured else None,
        )


def subject_row(evidence: Evidence, subject: str) -> SubjectRow:
    """Return how far the evidence of a subject goes, in its default environment and the others."""
    subject_evidence = evidence.select(subject)
    return SubjectRow(
        subject=subject,
        task=subject_evidence.task,
        strategies=len(subject_evidence.strategies),
        measured=len(subject_evidence.candidates),
        tiers=_tiers(subject_evidence),
        environments=[environment_out(selection) for selection in evidence.subjects[subject]],
    )


def _tiers(subject_evidence: SubjectEvidence) -> list[str]:
    """Return the tiers of all placements, in the order of the longest ones: that of a request through them."""
    placements = sorted((strategy.tiers for strategy in subject_evidence.strategies), key=len, reverse=True)
    return list(dict.fromkeys(tier for tiers in placements for tier in tiers))


def environment_out(subject_evidence: SubjectEvidence) -> EnvironmentOut:
    """Return the environment of an answer as it is sent."""
    out = _environments.get(subject_evidence)
    if out is None:
        out = _environments[subject_evidence] = _environment_out(subject_evidence)
    return out


def _environment_out(subject_evidence: SubjectEvidence) -> EnvironmentOut:
    environment = subject_evidence.environment
    return EnvironmentOut(
        **values_of(environment, EnvironmentSummary),
        measured_at=subject_evidence.last_measured_at,
        imported_from=environment.imported_from,
        imported_files=[ImportedFileOut(**values_of(file, FileSummary)) for file in subject_evidence.files],
        complete=subject_evidence.complete,
    )


def _status(strategy: DeclaredStrategy) -> str:
    if not strategy.applicable:
        return "inapplicable"
    if strategy.candidate is None:
        return "missing"
    return "complete" if strategy.complete else "partial"
