"""A question's budgets and constraints, resolved against what the evidence knows by name."""

from datetime import UTC, date, datetime

from recommender.answer.strategy_fields import DEFAULT_PERCENTILE
from recommender.evidence.model import Evidence, SubjectEvidence
from recommender.ranking import Budgets, Constraints, LatencyBudget
from recommender.schemas import AgeOut, ConstraintsOut, RecommendRequest


def resolve_budgets(evidence: Evidence, request: RecommendRequest) -> Budgets:
    """Return the explicit budgets, or those of the named SLO, whose highest percentile is the one to rank by."""
    if request.slo is not None:
        slo = evidence.slo(request.slo)
        percentile = max((budget.percentile for budget in slo.latency), default=DEFAULT_PERCENTILE)
        return Budgets(
            slo.latency,
            slo.min_accuracy_pct,
            slo.max_accuracy_drop_pp,
            percentile,
            objective=request.objective,
            confidence=request.confidence,
            equivalent_within=request.equivalent_within,
        )
    limit = request.max_latency_s
    return Budgets(
        latency=() if limit is None else (LatencyBudget(request.latency_percentile, limit),),
        min_accuracy_pct=request.min_accuracy_pct,
        max_accuracy_drop_pp=request.max_accuracy_drop_pp,
        percentile=request.latency_percentile,
        objective=request.objective,
        confidence=request.confidence,
        equivalent_within=request.equivalent_within,
    )


def resolve_constraints(evidence: Evidence, request: RecommendRequest) -> Constraints:
    """Return the constraints; raise `UnknownTier` or `UnknownOperator` for a name that is not in the evidence."""
    tiers = [*(request.allow_tiers or ()), *(request.forbid_tiers or ())]
    tiers += [*(request.max_memory_bytes or ()), *(request.max_model_bytes or ())]
    tiers += [request.keep_raw_input_on] if request.keep_raw_input_on is not None else []
    operators = [*(request.allow_operators or ()), *(request.forbid_operators or ())]
    evidence.check_names(tiers=tiers, operators=operators)
    return Constraints(
        allow_tiers=None if request.allow_tiers is None else frozenset(request.allow_tiers),
        forbid_tiers=frozenset(request.forbid_tiers or ()),
        allow_operators=None if request.allow_operators is None else frozenset(request.allow_operators),
        forbid_operators=frozenset(request.forbid_operators or ()),
        max_memory_bytes=request.max_memory_bytes or {},
        max_model_bytes=request.max_model_bytes or {},
        keep_raw_input_on=request.keep_raw_input_on,
        max_sent_bytes=request.max_sent_bytes,
    )


def constraints_out(request: RecommendRequest) -> ConstraintsOut:
    """Return the constraints as the question states them."""
    return ConstraintsOut(**request.model_dump(include=set(ConstraintsOut.model_fields)))


def today() -> date:
    """Return the day by which answers are dated, UTC."""
    return datetime.now(UTC).date()


def age_out(subject_evidence: SubjectEvidence, on: date) -> AgeOut:
    """Return the span of the measurements and its distance from a day."""
    return AgeOut(
        oldest_at=subject_evidence.first_measured_at,
        newest_at=subject_evidence.last_measured_at,
        asked_on=on.isoformat(),
        words=_words(subject_evidence, on),
    )


def _words(subject_evidence: SubjectEvidence, on: date) -> str:
    if subject_evidence.first_measured_at is None:
        return "nothing measured yet"
    oldest, newest = _days(subject_evidence.first_measured_at, on), _days(subject_evidence.last_measured_at, on)
    if oldest == newest:
        return f"measured {_ago(newest)}"
    return f"measured between {_ago(oldest)} and {_ago(newest)}"


def _days(moment: str, on: date) -> int:
    """Count whole days, by UTC's calendar."""
    return (on - datetime.fromisoformat(moment).astimezone(UTC).date()).days


def _ago(days: int) -> str:
    if days == 0:
        return "today"
    if days < 0:
        return f"{-days} day{'s' if days < -1 else ''} in the future (a clock is wrong)"
    return f"{days} day{'s' if days > 1 else ''} ago"
