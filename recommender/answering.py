"""From a question and the evidence to a full answer; no web framework, so that the command line asks the same way."""

from collections.abc import Iterator
from typing import TypedDict

from recommender import predicted, wording
from recommender.errors import FILL_COMMAND
from recommender.evidence import Environment, Evidence, Known, SubjectEvidence
from recommender.ranking import Answer, Budgets, Candidate, Estimate, LatencyBudget, estimate, recommend
from recommender.schemas import (
    AccuracyOut,
    AlternativeOut,
    BudgetsOut,
    ConsideredOut,
    EnvironmentOut,
    LatencyBudgetOut,
    LatencyOut,
    NearMissOut,
    NotConsideredOut,
    RecommendationOut,
    RecommendRequest,
    RecommendResponse,
    StrategyRow,
    SubjectRow,
    UndecidedOut,
)

DEFAULT_PERCENTILE = 90.0


class _StrategyFields(TypedDict):
    operator: str
    placement: str
    latency: LatencyOut
    accuracy: AccuracyOut | None
    size_bytes: int | None
    sent_bytes: float | None


def respond(evidence: Evidence, request: RecommendRequest) -> RecommendResponse:
    """Answer one question from one environment's evidence."""
    part = evidence.select(request.subject, request.environment)
    budgets = resolve_budgets(evidence, request)
    measured, part = part, predicted.on_links(evidence, part, request.links, budgets.percentile)
    answer = recommend(part.candidates, budgets)
    return RecommendResponse(
        subject=part.subject,
        budgets=_budgets(budgets, request.slo),
        links=predicted.asked_out(request.links),
        summary=wording.summary(answer),
        recommendation=_recommendation(answer, part),
        alternatives=[
            AlternativeOut(
                **_strategy(each.estimate),
                latency_ratio=each.latency_ratio,
                accuracy_difference_pp=each.accuracy_difference_pp,
                relation=each.relation.value,
                ratio_low=each.comparison.low if each.comparison else None,
                ratio_high=each.comparison.high if each.comparison else None,
            )
            for each in answer.alternatives
        ],
        near_misses=list(_near_misses(answer)),
        undecided=[
            UndecidedOut(
                **_strategy(each.estimate),
                kind=each.gap.value,
                reason=wording.undecided_reason(each),
                to_do=wording.to_do(each),
            )
            for each in answer.undecided
        ],
        considered=_considered(answer),
        not_considered=[_not_considered(each) for each in part.strategies if each.candidate is None],
        warnings=[
            *predicted.cautions(answer, request.links),
            *wording.cautions(answer),
            *_environment_warnings(evidence, measured),
        ],
        environment=environment_out(measured),
        inputs_select=part.inputs_select,
    )


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
            latency=_latency(found) if found else None,
            accuracy=_accuracy(found.candidate) if found else None,
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
    it: Environment = part.environment
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
        complete=part.complete,
    )


def _status(known: Known) -> str:
    if not known.applicable:
        return "inapplicable"
    if known.candidate is None:
        return "missing"
    return "complete" if known.complete else "partial"


def _budgets(budgets: Budgets, slo: str | None) -> BudgetsOut:
    return BudgetsOut(
        slo=slo,
        latency=[LatencyBudgetOut(percentile=each.percentile, max_s=each.max_s) for each in budgets.latency],
        min_accuracy_pct=budgets.min_accuracy_pct,
        max_accuracy_drop_pp=budgets.max_accuracy_drop_pp,
        objective=budgets.objective,
        confidence=budgets.confidence,
        equivalent_within=budgets.equivalent_within,
    )


def _recommendation(answer: Answer, part: SubjectEvidence) -> RecommendationOut | None:
    best = answer.recommendation
    if best is None:
        return None
    known = next(each for each in part.strategies if each.candidate is best.candidate)
    return RecommendationOut(
        **_strategy(best),
        joint_confidence=best.feasibility.joint_confidence if best.feasibility else 1.0,
        why=wording.why(answer) + predicted.note(best.candidate),
        artifact_sha256=dict(known.artifact_sha256),
    )


def _near_misses(answer: Answer) -> Iterator[NearMissOut]:
    for miss in answer.near_misses:
        yield NearMissOut(
            **_strategy(miss.estimate),
            latency_over_s=max((late.over_s for late in miss.latency), default=None),
            accuracy_short_pp=miss.accuracy_short_pp,
            drop_over_pp=miss.drop_over_pp,
            lacks=list(wording.lacks(miss)),
        )


def _considered(answer: Answer) -> list[ConsideredOut]:
    outcomes = [(answer.recommendation, "recommended")] if answer.recommendation else []
    outcomes += [(each.estimate, "alternative") for each in answer.alternatives]
    outcomes += [(each.estimate, "near_miss") for each in answer.near_misses]
    outcomes += [(each.estimate, "undecided") for each in answer.undecided]
    return [
        ConsideredOut.model_validate(
            {"operator": each.candidate.operator, "placement": each.candidate.placement, "outcome": outcome}
        )
        for each, outcome in outcomes
    ]


def _not_considered(known: Known) -> NotConsideredOut:
    return NotConsideredOut(
        operator=known.operator,
        placement=known.placement,
        reason=known.reason or ("not measured yet" if known.applicable else "the operator cannot apply here"),
        command=FILL_COMMAND if known.applicable else None,
    )


def _environment_warnings(evidence: Evidence, part: SubjectEvidence) -> Iterator[str]:
    it = part.environment
    if it.scale != "1":
        yield f"emulated at {it.scale}: budgets are judged on the emulation only"
    if it.launcher == "process":
        yield "measured with the process launcher: no containers, links paced in user space"
    if it.imported_from is not None:
        yield f"imported from {it.imported_from}, not measured here"
    if not part.complete:
        yield f"the evidence of this environment is not complete; `{FILL_COMMAND}` continues it"
    others = len(evidence.subjects[part.subject]) - 1
    if others:
        yield f"{others} other environment(s) hold evidence too and were left out; name one with `environment`"


def _strategy(each: Estimate) -> _StrategyFields:
    candidate = each.candidate
    return {
        "operator": candidate.operator,
        "placement": candidate.placement,
        "latency": _latency(each),
        "accuracy": _accuracy(candidate),
        "size_bytes": candidate.size_bytes,
        "sent_bytes": candidate.sent_bytes,
    }


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
        predicted_from=predicted.source_out(each.candidate.predicted),
    )


def _accuracy(candidate: Candidate) -> AccuracyOut | None:
    it = candidate.accuracy
    if it is None:
        return None
    return AccuracyOut(metric=it.metric, accuracy_pct=it.accuracy_pct, drop_pp=it.drop_pp, items=it.items)
