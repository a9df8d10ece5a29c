"""Where each strategy stands: order by latency, Pareto front, coverage. Pure functions over the evidence in memory."""

from collections.abc import Iterator

from recommender.answer.strategy_fields import SEPARATOR, distance_of, environment_out, strategy_id
from recommender.errors import FILL_COMMAND, UnknownStrategy
from recommender.evidence.model import Evidence, Known, SubjectEvidence
from recommender.ranking import Estimate, estimate, pareto_front
from recommender.schemas import LatencyBudgetOut
from recommender.schemas.resources import CoverageRow, SloOut, StandingOut, StandingsResponse


def find(evidence: Evidence, identity: str, environment: str | None = None) -> tuple[SubjectEvidence, Known]:
    """The strategy of that id and the subject's evidence that it is from; raises `UnknownStrategy`."""
    subject, _, _ = identity.partition(SEPARATOR)
    if subject not in evidence.subjects:
        raise UnknownStrategy(identity, ())
    part = evidence.select(subject, environment)
    ids = {strategy_id(subject, strategy.operator, strategy.placement): strategy for strategy in part.strategies}
    if identity not in ids:
        raise UnknownStrategy(identity, ids)
    return part, ids[identity]


def standings(part: SubjectEvidence, percentile: float) -> StandingsResponse:
    """All measured strategies of a subject, fastest at the percentile first, with the Pareto front marked."""
    ordered = sorted(
        (estimate(candidate, percentile) for candidate in part.candidates if candidate.samples), key=_speed
    )
    front = pareto_front([(each.percentile_s, _accuracy(each)) for each in ordered])
    rows = [_standing(part.subject, each, rank, rank - 1 in front) for rank, each in enumerate(ordered, start=1)]
    return StandingsResponse(
        subject=part.subject,
        percentile=percentile,
        environment=environment_out(part),
        strategies=rows,
        without_accuracy=[row.id for row in rows if row.accuracy_pct is None],
    )


def coverage(evidence: Evidence) -> Iterator[CoverageRow]:
    """How far each subject's declaration is measured in each environment."""
    for subject, parts in evidence.subjects.items():
        for part in parts:
            yield _coverage(subject, part)


def slos(evidence: Evidence) -> list[SloOut]:
    """The declared SLOs by name."""
    return [
        SloOut(
            name=name,
            latency=[LatencyBudgetOut(percentile=each.percentile, max_s=each.max_s) for each in slo.latency],
            min_accuracy_pct=slo.min_accuracy_pct,
            max_accuracy_drop_pp=slo.max_accuracy_drop_pp,
        )
        for name, slo in sorted(evidence.slos.items())
    ]


def _coverage(subject: str, part: SubjectEvidence) -> CoverageRow:
    applicable = [strategy for strategy in part.strategies if strategy.applicable]
    unfinished = [each for each in applicable if not each.complete]
    missing = sum(each.candidate is None for each in unfinished)
    return CoverageRow(
        subject=subject,
        environment=part.environment.key,
        declared=len(part.strategies),
        complete=len(applicable) - len(unfinished),
        partial=len(unfinished) - missing,
        missing=missing,
        inapplicable=len(part.strategies) - len(applicable),
        rounds=sum(each.candidate.rounds for each in applicable if each.candidate is not None),
        rounds_declared=sum(each.rounds_declared for each in applicable),
        to_measure=[strategy_id(subject, each.operator, each.placement) for each in unfinished],
        command=FILL_COMMAND if unfinished else None,
    )


def _standing(subject: str, each: Estimate, rank: int, pareto: bool) -> StandingOut:
    candidate = each.candidate
    accuracy = candidate.accuracy
    return StandingOut(
        id=strategy_id(subject, candidate.operator, candidate.placement),
        operator=candidate.operator,
        placement=candidate.placement,
        rank=rank,
        median_s=each.median_s,
        percentile_s=each.percentile_s,
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


def _accuracy(each: Estimate) -> float | None:
    """Agreement with identity is none: it says how alike, not how right."""
    found = each.candidate.accuracy
    return found.accuracy_pct if found is not None and found.from_labels else None


def _speed(each: Estimate) -> tuple[float, str, str]:
    return each.percentile_s, each.candidate.operator, each.candidate.placement
