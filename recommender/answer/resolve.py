"""A question's budgets and constraints, resolved against what the evidence knows by name."""

from recommender.evidence.model import Evidence
from recommender.ranking import Budgets, Constraints, LatencyBudget
from recommender.rows import DEFAULT_PERCENTILE
from recommender.schemas import ConstraintsOut, RecommendRequest


def resolve_budgets(evidence: Evidence, request: RecommendRequest) -> Budgets:
    """The explicit budgets, or those of the named SLO (its highest percentile is the one to rank by)."""
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
    """The constraints; raises `UnknownTier` or `UnknownOperator` for a name that is not in the evidence."""
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
    """The constraints as they were asked."""
    return ConstraintsOut(**request.model_dump(include=set(ConstraintsOut.model_fields)))
