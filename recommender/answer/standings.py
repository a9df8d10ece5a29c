"""The standing of each strategy: order by latency, Pareto front, coverage, and what an unmeasured one could change."""

from collections.abc import Iterator, Sequence

from recommender.answer.strategy_fields import SEPARATOR, distance_of, environment_out, strategy_id
from recommender.answer.wording import breach_words, cannot_show
from recommender.errors import FILL_COMMAND, UnknownStrategy
from recommender.evidence.model import DeclaredStrategy, Evidence, SubjectEvidence, latency_budgets
from recommender.ranking import (
    AccuracyMeasurement,
    Budgets,
    Candidate,
    Constraints,
    Estimate,
    LatencyBudget,
    RankedAnswer,
    declared_breaches,
    estimate,
    pareto_front,
    shortfalls,
)
from recommender.ranking.model import Unit
from recommender.schemas import LatencyBudgetOut, NotConsideredOut
from recommender.schemas.resources import CoverageRow, SloOut, StandingOut, StandingsResponse


def find(evidence: Evidence, identity: str, environment: str | None = None) -> tuple[SubjectEvidence, DeclaredStrategy]:
    """Return the strategy of that id and the evidence that holds it; raise `UnknownStrategy`."""
    # Names in a catalog file contain no colon, so the first one ends the subject.
    subject, _, _ = identity.partition(SEPARATOR)
    if subject not in evidence.subjects:
        raise UnknownStrategy(identity, ())
    subject_evidence = evidence.select(subject, environment)
    ids = {
        strategy_id(subject, strategy.operator, strategy.placement): strategy
        for strategy in subject_evidence.strategies
    }
    if identity not in ids:
        # With the ids of the subject, from which the error names the nearest spelling.
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
            latency=latency_budgets_out(latency_budgets(slo)),
            min_accuracy_pct=slo.min_pct,
            max_accuracy_drop_pp=slo.max_drop_pp,
        )
        for name, slo in sorted(evidence.slos.items())
    ]


def latency_budgets_out(budgets: Sequence[LatencyBudget]) -> tuple[LatencyBudgetOut, ...]:
    """Return limits on the latency as they are sent."""
    return tuple(LatencyBudgetOut(percentile=budget.percentile, max_s=budget.max_s) for budget in budgets)


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
    # With the names, so that equal latencies keep one order.
    return estimate.percentile_s, estimate.candidate.operator, estimate.candidate.placement


_NO_BOUND = "nothing known rules it out: its latency is open"


def not_considered(
    subject_evidence: SubjectEvidence, answer: RankedAnswer, constraints: Constraints
) -> Iterator[NotConsideredOut]:
    """Yield every declared strategy without evidence, and whether its evidence could change the answer.

    It could become the recommendation unless one of these is known already:

    - its operator cannot apply to the subject;
    - a constraint excludes it by what is declared (tiers, operators, the size of its model files);
    - its accuracy is known, its own or the same operator's at another placement (the model is the same file), and
      misses an accuracy budget, or cannot promise it even if it were the only candidate;
    - the objective is accuracy or size, something is recommended, and the known accuracy or size is worse.

    A bound on its latency from parts measured elsewhere is not used: another tier, another load, no sound bound.
    """
    accuracies = _accuracies(subject_evidence)
    for strategy in subject_evidence.strategies:
        if strategy.candidate is None:
            accuracy = strategy.accuracy or accuracies.get(strategy.operator)
            excuse = _cannot_change(strategy, accuracy, answer, constraints)
            yield NotConsideredOut(
                operator=strategy.operator,
                placement=strategy.placement,
                reason=strategy.reason
                or ("not measured yet" if strategy.applicable else "the operator cannot apply here"),
                command=FILL_COMMAND if strategy.applicable else None,
                could_change_answer=excuse is None,
                because=excuse or _NO_BOUND,
            )


def _accuracies(subject_evidence: SubjectEvidence) -> dict[str, AccuracyMeasurement]:
    """Map operators to accuracies: an accuracy does not depend on where the model runs, up to rounding."""
    return {
        strategy.operator: strategy.accuracy
        for strategy in subject_evidence.strategies
        if strategy.accuracy is not None
    }


def _cannot_change(
    strategy: DeclaredStrategy, accuracy: AccuracyMeasurement | None, answer: RankedAnswer, constraints: Constraints
) -> str | None:
    if not strategy.applicable:
        return "the operator cannot apply to this subject"
    broken = declared_breaches(strategy.operator, strategy.tiers, strategy.model_bytes, constraints)
    if broken:
        return f"excluded by what is declared: {breach_words(broken[0])}"
    if accuracy is not None:
        excuse = _too_inaccurate(strategy, accuracy, answer.budgets) or _worse_accuracy(accuracy, answer)
        if excuse is not None:
            return excuse
    return _larger(strategy, answer)


def _too_inaccurate(strategy: DeclaredStrategy, accuracy: AccuracyMeasurement, budgets: Budgets) -> str | None:
    """Name an accuracy budget that the measured accuracy misses, or could not promise as the only candidate."""
    # Without latencies, because only budgets of accuracy are checked.
    alone = Candidate(strategy.operator, strategy.placement, strategy.tiers, (), inputs=0, accuracy=accuracy)
    accuracy_budgets = Budgets(
        min_accuracy_pct=budgets.min_accuracy_pct,
        max_accuracy_drop_pp=budgets.max_accuracy_drop_pp,
        confidence=budgets.confidence,
    )
    # A single candidate needs the lowest confidence, so a budget that fails here fails among others too.
    for shortfall in shortfalls(alone, accuracy_budgets, among=[alone]):
        beyond = shortfall.bound_over if shortfall.bound_over is not None else shortfall.over
        # Room for rounding: an accuracy exactly at its limit must not miss it by 1e-14.
        if beyond is not None and beyond > 1e-9:
            what = f"{accuracy.metric} {accuracy.accuracy_pct:.2f} %"
            if shortfall.over is not None and shortfall.over > 1e-9:
                return f"its accuracy is known ({what}) and misses {shortfall.budget}"
            reason = f"its accuracy is known ({what}) and cannot promise {shortfall.budget}"
            if shortfall.out_of_reach and shortfall.items is not None and shortfall.best_bound is not None:
                unit: Unit = "%" if shortfall.budget == "min_accuracy_pct" else "pp"
                return f"{reason}: {cannot_show(shortfall.items, shortfall.best_bound, unit)}"
            return reason
    return None


def _worse_accuracy(accuracy: AccuracyMeasurement, answer: RankedAnswer) -> str | None:
    best = answer.recommendation.candidate.accuracy if answer.recommendation else None
    if answer.budgets.objective == "accuracy" and best is not None and accuracy.accuracy_pct < best.accuracy_pct:
        return f"its accuracy is known ({accuracy.metric} {accuracy.accuracy_pct:.2f} %) and below the recommendation's"
    return None


def _larger(strategy: DeclaredStrategy, answer: RankedAnswer) -> str | None:
    best = answer.recommendation.candidate.size_bytes if answer.recommendation else None
    if answer.budgets.objective != "size" or best is None or strategy.model_bytes is None:
        return None
    larger = sum(strategy.model_bytes.values()) > best
    return "its model files are known and larger than the recommendation's" if larger else None
