"""From a question and the evidence to a full answer; no web framework, so that the command line asks the same way."""

from collections.abc import Iterator, Mapping
from datetime import date

from catalog.statistics import Comparison
from recommender.answer import wording
from recommender.answer.caveats import cautions
from recommender.answer.quality import quality_note
from recommender.answer.resolve import age_out, constraints_out, resolve_budgets, resolve_constraints, today
from recommender.answer.strategy_fields import StrategyFields, environment_out, strategy_fields
from recommender.answer.unmeasured import not_considered
from recommender.answer.wording import reasons, relaxation_words, summary
from recommender.evidence.model import EnvironmentFilter, Evidence, Known
from recommender.ranking import (
    Answer,
    Breach,
    Budgets,
    Candidate,
    Estimate,
    Excluded,
    Relaxation,
    recommend,
    shortfalls,
)
from recommender.ranking.candidates import CandidateCache
from recommender.schemas import (
    AlternativeOut,
    BreachOut,
    BudgetsOut,
    ChoiceOut,
    ConsideredOut,
    ExcludedOut,
    LatencyBudgetOut,
    NearMissOut,
    Outcome,
    RecommendationOut,
    RecommendRequest,
    RecommendResponse,
    RelaxationOut,
    ShortfallOut,
    UndecidedOut,
)
from recommender.whatif import on_links

_considered_rows: CandidateCache[ConsideredOut] = CandidateCache()


def respond(evidence: Evidence, request: RecommendRequest, *, on: date | None = None) -> RecommendResponse:
    """Answer one question from one environment's evidence; `on` is the day by which its age is told."""
    asked = EnvironmentFilter(request.environment, request.host, request.scale, request.launcher)
    chosen = evidence.choose(request.subject, asked)
    budgets = resolve_budgets(evidence, request)
    part = on_links.on_links(evidence, chosen.part, request.links, budgets.percentile)
    constraints = resolve_constraints(evidence, request)
    answer = recommend(part.candidates, budgets, constraints=constraints)
    known = {strategy.candidate: strategy for strategy in part.strategies if strategy.candidate is not None}
    parts = _Parts(answer, part.subject, known)
    relaxed = [_relaxation(relaxation) for relaxation in answer.relaxations]
    return RecommendResponse(
        subject=part.subject,
        budgets=_budgets(budgets, request.slo),
        links=on_links.asked_out(request.links),
        constraints=constraints_out(request) if constraints.given else None,
        summary=summary(answer),
        recommendation=parts.recommendation(),
        relaxation=relaxed[0] if relaxed else None,
        other_relaxations=relaxed[1:],
        alternatives=list(parts.alternatives()),
        near_misses=list(parts.near_misses()),
        undecided=list(parts.undecided()),
        considered=_considered(answer),
        excluded=[_excluded(each) for each in answer.excluded],
        not_considered=list(not_considered(part, answer, constraints)),
        warnings=[*on_links.cautions(answer, request.links), *cautions(answer, chosen, constraints, known)],
        environment=environment_out(chosen.part),
        environment_choice=ChoiceOut(why=chosen.why, others=chosen.others),
        age=age_out(part, on or today()),
        inputs_select=part.inputs_select,
    )


class _Parts:
    """The strategies of one answer, each in its place."""

    def __init__(self, answer: Answer, subject: str, known: Mapping[Candidate, Known]) -> None:
        self._answer, self._subject, self._known = answer, subject, known

    def recommendation(self) -> RecommendationOut | None:
        """The chosen one."""
        best = self._answer.recommendation
        if best is None:
            return None
        return RecommendationOut(
            **self._fields(best),
            joint_confidence=best.feasibility.joint_confidence if best.feasibility else 1.0,
            why=wording.why(self._answer),
            quality=quality_note(self._answer),
        )

    def alternatives(self) -> Iterator[AlternativeOut]:
        """The other feasible ones."""
        for alternative in self._answer.alternatives:
            yield AlternativeOut(
                **self._fields(alternative.estimate),
                latency_ratio=alternative.latency_ratio,
                latency_ratio_low=_low(alternative.against_best),
                latency_ratio_high=_high(alternative.against_best),
                accuracy_difference_pp=alternative.accuracy_difference_pp,
                relation=alternative.relation.value,
                ratio_low=_low(alternative.comparison),
                ratio_high=_high(alternative.comparison),
            )

    def near_misses(self) -> Iterator[NearMissOut]:
        """Those that miss a budget."""
        for miss in self._answer.near_misses:
            yield NearMissOut(
                **self._fields(miss.estimate),
                latency_over_s=max((late.over_s for late in miss.latency), default=None),
                accuracy_short_pp=miss.accuracy_short_pp,
                drop_over_pp=miss.drop_over_pp,
                lacks=list(wording.lacks(miss)),
                shortfalls=self._shortfalls(miss.estimate),
            )

    def undecided(self) -> Iterator[UndecidedOut]:
        """Those about which the evidence says too little."""
        for each in self._answer.undecided:
            yield UndecidedOut(
                **self._fields(each.estimate),
                kind=each.gap.value,
                reason=wording.undecided_reason(each),
                to_do=wording.to_do(each),
                shortfalls=self._shortfalls(each.estimate),
            )

    def _fields(self, each: Estimate) -> StrategyFields:
        pareto = each.candidate in self._answer.pareto
        return strategy_fields(self._subject, self._known[each.candidate], each, pareto=pareto)

    def _shortfalls(self, each: Estimate) -> list[ShortfallOut]:
        among = [it.candidate for it in self._answer.considered]
        found = shortfalls(each.candidate, self._answer.budgets, among=among, judged=each.feasibility)
        return [
            ShortfallOut(
                budget=it.budget,
                percentile=it.percentile,
                limit=it.limit,
                estimate=it.estimate,
                over=it.over,
                bound=it.bound,
                bound_over=it.bound_over,
                items=it.items,
                best_bound=it.best_bound,
                items_needed=it.items_needed,
            )
            for it in found
        ]


def _low(comparison: Comparison | None) -> float | None:
    return comparison.low if comparison is not None else None


def _high(comparison: Comparison | None) -> float | None:
    return comparison.high if comparison is not None else None


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


def _relaxation(each: Relaxation) -> RelaxationOut:
    it, gives = each.change, each.gives.candidate
    return RelaxationOut(
        field=it.field,
        key=it.key,
        percentile=it.percentile,
        from_value=list(it.before) if isinstance(it.before, tuple) else it.before,
        to_value=list(it.after) if isinstance(it.after, tuple) else it.after,
        cost=it.cost,
        operator=gives.operator,
        placement=gives.placement,
        words=relaxation_words(each),
    )


def _excluded(each: Excluded) -> ExcludedOut:
    return ExcludedOut(
        operator=each.candidate.operator,
        placement=each.candidate.placement,
        reason=reasons(each.breaches),
        breaches=[_breach(it) for it in each.breaches],
    )


def _breach(it: Breach) -> BreachOut:
    return BreachOut(constraint=it.constraint, name=it.name or None, limit=it.limit, got=it.got)


def _considered(answer: Answer) -> list[ConsideredOut]:
    best = answer.recommendation
    outcomes: list[tuple[Estimate, Outcome]] = [(best, "recommended")] if best else []
    outcomes += [(alternative.estimate, "alternative") for alternative in answer.alternatives]
    outcomes += [(near_miss.estimate, "near_miss") for near_miss in answer.near_misses]
    outcomes += [(each.estimate, "undecided") for each in answer.undecided]
    return [_considered_one(each.candidate, outcome) for each, outcome in outcomes]


def _considered_one(candidate: Candidate, outcome: Outcome) -> ConsideredOut:
    def made() -> ConsideredOut:
        return ConsideredOut(operator=candidate.operator, placement=candidate.placement, outcome=outcome)

    return _considered_rows.get(candidate, outcome, made)
