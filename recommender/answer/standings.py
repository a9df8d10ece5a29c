"""The standing of each strategy: order by latency, Pareto front, coverage. Pure functions."""

from collections.abc import Iterator

from recommender.answer.strategy_fields import SEPARATOR, distance_of, environment_out, strategy_id
from recommender.errors import FILL_COMMAND, UnknownStrategy
from recommender.evidence.model import DeclaredStrategy, Evidence, SubjectEvidence
from recommender.ranking import Estimate, estimate, pareto_front
from recommender.schemas import LatencyBudgetOut
from recommender.schemas.resources import CoverageRow, SloOut, StandingOut, StandingsResponse


def find(evidence: Evidence, identity: str, environment: str | None = None) -> tuple[SubjectEvidence, DeclaredStrategy]:
    """Return the strategy of that id and the evidence that holds it; raise `UnknownStrategy`."""
    subject, _, _ = identity.partition(SEPARATOR)
    if subject not in evidence.subjects:
        raise UnknownStrategy(identity, ())
    subject_evidence = evidence.select(subject, environment)
    ids = {
        strategy_id(subject, strategy.operator, strategy.placement): strategy
        for strategy in subject_evidence.strategies
    }
    if identity not in ids:
        raise UnknownStrategy(identity, ids)
    return subject_evidence, ids[identity]


def standings(subject_evidence: SubjectEvidence, percentile: float) -> StandingsResponse:
    """Rank all measured strategies of a subject by the percentile and mark the Pareto front."""
    ordered = sorted(
        (estimate(candidate, percentile) for candidate in subject_evidence.candidates if candidate.samples), key=_speed
    )
    front = pareto_front([(measured.percentile_s, _accuracy(measured)) for measured in ordered])
    rows = [
        _standing(subject_evidence.subject, measured, rank, rank - 1 in front)
        for rank, measured in enumerate(ordered, start=1)
    ]
    return StandingsResponse(
        subject=subject_evidence.subject,
        percentile=percentile,
        environment=environment_out(subject_evidence),
        strategies=rows,
        without_accuracy=[row.id for row in rows if row.accuracy_pct is None],
    )


def coverage(evidence: Evidence) -> Iterator[CoverageRow]:
    """Yield how far each subject's declaration is measured in each environment."""
    for subject, by_environment in evidence.subjects.items():
        for subject_evidence in by_environment:
            yield _coverage(subject, subject_evidence)


def slos(evidence: Evidence) -> list[SloOut]:
    """Return the declared SLOs, sorted by name."""
    return [
        SloOut(
            name=name,
            latency=[LatencyBudgetOut(percentile=budget.percentile, max_s=budget.max_s) for budget in slo.latency],
            min_accuracy_pct=slo.min_accuracy_pct,
            max_accuracy_drop_pp=slo.max_accuracy_drop_pp,
        )
        for name, slo in sorted(evidence.slos.items())
    ]


def _coverage(subject: str, subject_evidence: SubjectEvidence) -> CoverageRow:
    applicable = [strategy for strategy in subject_evidence.strategies if strategy.applicable]
    unfinished = [strategy for strategy in applicable if not strategy.complete]
    missing = sum(strategy.candidate is None for strategy in unfinished)
    return CoverageRow(
        subject=subject,
        environment=subject_evidence.environment.key,
        declared=len(subject_evidence.strategies),
        complete=len(applicable) - len(unfinished),
        partial=len(unfinished) - missing,
        missing=missing,
        inapplicable=len(subject_evidence.strategies) - len(applicable),
        rounds=sum(strategy.candidate.rounds for strategy in applicable if strategy.candidate is not None),
        rounds_declared=sum(strategy.rounds_declared for strategy in applicable),
        to_measure=[strategy_id(subject, strategy.operator, strategy.placement) for strategy in unfinished],
        command=FILL_COMMAND if unfinished else None,
    )


def _standing(subject: str, estimate: Estimate, rank: int, pareto: bool) -> StandingOut:
    candidate = estimate.candidate
    accuracy = candidate.accuracy
    return StandingOut(
        id=strategy_id(subject, candidate.operator, candidate.placement),
        operator=candidate.operator,
        placement=candidate.placement,
        rank=rank,
        median_s=estimate.median_s,
        percentile_s=estimate.percentile_s,
        metric=accuracy.metric if accuracy else None,
        accuracy_pct=accuracy.accuracy_pct if accuracy else None,
        drop_pp=accuracy.drop_pp if accuracy else None,
        distance=distance_of(candidate),
        size_bytes=candidate.size_bytes,
        sent_bytes=candidate.sent_bytes,
        rounds=candidate.rounds,
        inputs=candidate.inputs,
        pareto=pareto,
    )


def _accuracy(estimate: Estimate) -> float | None:
    """Return the accuracy; None for agreement with identity, which says how alike outputs are, not how right."""
    accuracy = estimate.candidate.accuracy
    return accuracy.accuracy_pct if accuracy is not None and accuracy.from_labels else None


def _speed(estimate: Estimate) -> tuple[float, str, str]:
    return estimate.percentile_s, estimate.candidate.operator, estimate.candidate.placement
