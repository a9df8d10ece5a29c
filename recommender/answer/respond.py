"""From a question, resolved against the evidence, to a full answer; without a web framework, for the command line."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, TypedDict

from catalog.statistics.comparison import Comparison
from recommender.answer import wording
from recommender.answer.strategy_fields import (
    DEFAULT_PERCENTILE,
    PlacedStrategy,
    asked_out,
    encoded,
    environment_out,
    not_considered,
)
from recommender.answer.summary import cautions, link_cautions, not_chosen, summary, why
from recommender.answer.to_do import Planner, ToDo
from recommender.answer.wording import quality_note, relaxation_words
from recommender.evidence.model import DeclaredStrategy, EnvironmentFilter, Evidence, SubjectEvidence, latency_budgets
from recommender.ranking import (
    Breach,
    Budgets,
    Candidate,
    Constraints,
    Estimate,
    ExcludedCandidate,
    LatencyBudget,
    Prospect,
    RankedAnswer,
    Relaxation,
    Shortfall,
    Status,
    recommend,
)
from recommender.ranking.candidates import CandidateCache
from recommender.ranking.feasibility import AllShortfalls
from recommender.ranking.model import WITHOUT_ESTIMATE
from recommender.schemas import (
    AgeOut,
    BreachOut,
    ConsideredOut,
    ConstraintsOut,
    ExcludedOut,
    InfeasibleOut,
    Outcome,
    RecommendRequest,
    RecommendResponse,
    RelaxationOut,
    ToDoOut,
)
from recommender.schemas.answer import AnswerStatus
from recommender.schemas.answer import Status as StrategyStatus
from recommender.schemas.base import CONDITIONS
from recommender.whatif.on_links import on_links


def resolve_budgets(evidence: Evidence, request: RecommendRequest) -> Budgets:
    """Return the explicit budgets, or those of the named SLO, whose highest percentile is the one to rank by."""
    if request.slo is not None:
        slo = evidence.slo(request.slo, request.subject)
        return Budgets(
            latency=latency_budgets(slo),
            min_accuracy_pct=slo.min_pct,
            max_accuracy_drop_pp=slo.max_drop_pp,
            percentile=max(slo.latency_s, default=DEFAULT_PERCENTILE),
            objective=request.objective,
            confidence=request.confidence,
            equivalent_within=request.equivalent_within,
            cost_of_breaking=request.cost_of_breaking,
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
        cost_of_breaking=request.cost_of_breaking,
    )


def resolve_constraints(evidence: Evidence, request: RecommendRequest) -> Constraints:
    """Return the constraints; raise `UnknownTier` or `UnknownOperator` for a name that is not in the evidence."""
    tiers = [*(request.allow_tiers or ()), *(request.forbid_tiers or ())]
    tiers += [*(request.max_memory_bytes or ()), *(request.max_model_bytes or ())]
    tiers += [request.keep_raw_input_on] if request.keep_raw_input_on is not None else []
    operators = [*(request.allow_operators or ()), *(request.forbid_operators or ())]
    evidence.check_names(tiers=tiers, operators=operators)
    return constraints_of(request)


def constraints_of(request: RecommendRequest) -> Constraints:
    """Return the constraints of a question as the ranking takes them."""
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


def environment_filter(request: RecommendRequest) -> EnvironmentFilter:
    """Return which environment a question asks about."""
    return EnvironmentFilter(request.environment, request.host, request.scale, request.launcher)


def constraints_out(request: RecommendRequest) -> ConstraintsOut:
    """Return the constraints as the question states them."""
    # The constraints have the same names in a question and in its answer.
    return ConstraintsOut(**request.model_dump(include=set(ConstraintsOut.model_fields)))


def today() -> date:
    """Return the day by which answers are dated, UTC."""
    return datetime.now(UTC).date()


_ages: CandidateCache[AgeOut] = CandidateCache(most=2)


def age_out(subject_evidence: SubjectEvidence, on: date) -> AgeOut:
    """Return the span of the measurements and its distance from a day."""
    return _ages.get(subject_evidence, on, lambda: _age_out(subject_evidence, on))


def _age_out(subject_evidence: SubjectEvidence, on: date) -> AgeOut:
    return AgeOut(
        oldest_at=subject_evidence.first_measured_at,
        newest_at=subject_evidence.last_measured_at,
        asked_on=on.isoformat(),
        words=_words(subject_evidence, on),
    )


def _words(subject_evidence: SubjectEvidence, on: date) -> str:
    if subject_evidence.first_measured_at is None:
        return "nothing measured yet"
    # Rows hold no time, so that theirs is the import's.
    if subject_evidence.environment.of_rows:
        imported = _ago(_days(subject_evidence.last_measured_at, on))
        return f"imported {imported}; when it was measured is not known"
    oldest, newest = _days(subject_evidence.first_measured_at, on), _days(subject_evidence.last_measured_at, on)
    if oldest == newest:
        return f"measured {_ago(newest)}"
    return f"measured between {_ago(oldest)} and {_ago(newest)}"


def _days(moment: str, on: date) -> int:
    """Count whole days, by UTC's calendar."""
    # Days of the calendar, because answers are kept until the day changes (`recommender.http.questions`).
    return (on - datetime.fromisoformat(moment).astimezone(UTC).date()).days


def _ago(days: int) -> str:
    if days == 0:
        return "today"
    # Evidence may come from a machine whose clock is ahead.
    if days < 0:
        return f"{-days} day{'s' if days < -1 else ''} in the future (a clock is wrong)"
    return f"{days} day{'s' if days > 1 else ''} ago"


# A row depends on the candidate and its outcome alone, so it serves later questions too.
_considered_rows: CandidateCache[ConsideredOut] = CandidateCache()


def respond(evidence: Evidence, request: RecommendRequest, *, on: date | None = None) -> RecommendResponse:
    """Answer one question from one environment's evidence, whose age is counted from the day `on`."""
    return RecommendResponse(**{name: _modelled(value) for name, value in _fields(evidence, request, on).items()})


def answer_json(evidence: Evidence, request: RecommendRequest, *, on: date | None = None) -> bytes:
    """Return what `respond` returns as JSON, byte for byte, without making its models."""
    pieces: list[bytes] = []
    # Fields between those that hold strategies are encoded together.
    plain: dict[str, Any] = {}
    for name, value in _fields(evidence, request, on).items():
        if isinstance(value, PlacedStrategy):
            text = value.json()
        elif isinstance(value, list) and value and isinstance(value[0], PlacedStrategy):
            text = b"[%b]" % b",".join([placed.json() for placed in value])
        else:
            plain[name] = value
            continue
        if plain:
            pieces.append(encoded(plain)[1:-1])
            plain = {}
        pieces.append(b'"%b":%b' % (name.encode(), text))
    if plain:
        pieces.append(encoded(plain)[1:-1])
    return b"{%b}" % b",".join(pieces)


def _modelled(value: Any) -> Any:
    if isinstance(value, PlacedStrategy):
        return value.fields
    if isinstance(value, list):
        return [_modelled(item) for item in value]
    return value


def _fields(evidence: Evidence, request: RecommendRequest, on: date | None) -> dict[str, Any]:
    """Return the fields of a `RecommendResponse`, all of them and in their order."""
    chosen = evidence.choose(request.subject, environment_filter(request))
    budgets = resolve_budgets(evidence, request)
    # From here on candidates are those over the asked links: predicted where these were not measured.
    subject_evidence = chosen.subject_evidence
    unpredicted: list[DeclaredStrategy] = []
    if request.links:
        subject_evidence = on_links(evidence, subject_evidence, request.links, budgets.percentile)
        unpredicted = [
            after
            for before, after in zip(chosen.subject_evidence.strategies, subject_evidence.strategies, strict=True)
            if before.candidate is not None and after.candidate is None
        ]
    constraints = resolve_constraints(evidence, request)
    answer = recommend(subject_evidence.candidates, budgets, constraints=constraints, proven_only=request.version == 1)
    strategies = subject_evidence.by_candidate
    planner, whole = Planner(answer, subject_evidence, strategies, request), request.detail == "full"
    fields = _AnswerFields(answer, subject_evidence.subject, strategies, planner, whole=whole)
    relaxed = [_relaxation(relaxation) for relaxation in answer.relaxations]
    unmeasured = list(not_considered(subject_evidence, answer, constraints, unpredicted))
    to_do = planner.whole(unmeasured)
    infeasible, recommendation = _infeasible(answer), fields.recommendation()
    return {
        "version": request.version,
        "status": _status(answer, infeasible),
        "probability": _probability(answer),
        "subject": subject_evidence.subject,
        "budgets": _budgets(budgets, request.slo),
        "links": asked_out(request.links),
        "constraints": constraints_out(request) if constraints.any_set else None,
        "summary": summary(
            answer,
            to_do,
            reason=None if recommendation is None else recommendation.added["why"],
            unpredicted=unpredicted,
        ),
        "to_do": None if to_do is None else _to_do(to_do),
        "recommendation": recommendation,
        "proven": fields.proven(),
        "infeasible": infeasible,
        # `relaxations` puts the cheapest first.
        "relaxation": relaxed[0] if relaxed else None,
        "other_relaxations": relaxed[1:],
        "alternatives": list(fields.alternatives()),
        "near_misses": list(fields.near_misses()) if whole else [],
        "undecided": list(fields.undecided()),
        "considered": _considered(answer) if whole else [],
        "excluded": [_excluded(excluded) for excluded in answer.excluded],
        "not_considered": unmeasured,
        "warnings": [
            *link_cautions(answer, request.links, unpredicted),
            *cautions(answer, chosen, constraints, strategies),
        ],
        "environment": environment_out(chosen.subject_evidence),
        "environment_choice": {"why": chosen.why, "others": chosen.others},
        "age": age_out(chosen.subject_evidence, on or today()),
        "conditions": CONDITIONS,
        "inputs_select": subject_evidence.inputs_select,
    }


class _AnswerFields:
    """The strategies of one answer, each in its place."""

    def __init__(
        self,
        answer: RankedAnswer,
        subject: str,
        strategies: Mapping[Candidate, DeclaredStrategy],
        planner: Planner,
        *,
        whole: bool,
    ) -> None:
        self._answer, self._subject, self._strategies = answer, subject, strategies
        self._planner, self._whole = planner, whole

    def recommendation(self) -> PlacedStrategy | None:
        """Return the recommended strategy."""
        best = self._answer.recommendation
        return None if best is None else self._recommended(self._answer, best)

    def proven(self) -> PlacedStrategy | None:
        """Return the best proven strategy, where the recommendation is another."""
        proven = self._answer.proven
        if proven is None:
            return None
        # As if it were recommended, among the proven ones alone.
        rest = tuple(alternative.prospect for alternative in self._answer.alternatives)
        others = tuple(prospect for prospect in rest if prospect is not proven)
        return self._recommended(replace(self._answer, recommendation=proven, proven=None, within=others), proven)

    def _recommended(self, answer: RankedAnswer, best: Prospect) -> PlacedStrategy:
        """Return the fields of a `RecommendationOut`."""
        return self._placed(
            best.estimate,
            {
                **_sureness(answer, best),
                "joint_confidence": best.joint_confidence,
                "next_start_high_s": _next_start_s(best.estimate),
                "why": why(answer),
                "not_chosen": list(not_chosen(answer)),
                "reason": None if best.gap is None else wording.undecided_reason(best.gap),
                "lacks": [] if best.miss is None else list(wording.lacks(best.miss)),
                "quality": quality_note(answer),
            },
        )

    def alternatives(self) -> Iterator[PlacedStrategy]:
        """Yield the other proven strategies, each with the fields of an `AlternativeOut`."""
        for alternative in self._answer.alternatives:
            yield self._placed(
                alternative.estimate,
                {
                    **_sureness(self._answer, alternative.prospect),
                    "relation": alternative.relation.value,
                    "ratio_low": _low(alternative.comparison),
                    "ratio_high": _high(alternative.comparison),
                    "latency_ratio": alternative.latency_ratio,
                    "latency_ratio_low": _low(alternative.against_best),
                    "latency_ratio_high": _high(alternative.against_best),
                    "accuracy_difference_pp": alternative.accuracy_difference_pp,
                },
            )

    def near_misses(self) -> Iterator[PlacedStrategy]:
        """Yield the strategies that miss a budget but a recommended one, each with the fields of a `NearMissOut`."""
        for miss in self._answer.other_near_misses:
            yield self._placed(
                miss.estimate,
                {
                    "latency_over_s": max((late.over_s for late in miss.latency), default=None),
                    "accuracy_short_pp": miss.accuracy_short_pp,
                    "drop_over_pp": miss.drop_over_pp,
                    "lacks": list(wording.lacks(miss)),
                    "shortfalls": self._shortfalls(miss.estimate),
                },
            )

    def undecided(self) -> Iterator[PlacedStrategy]:
        """Yield the strategies within the budgets that are not proven, each with the fields of an `UndecidedOut`."""
        for prospect in self._answer.within:
            if prospect.gap is not None:
                yield self._placed(
                    prospect.estimate,
                    {
                        **_sureness(self._answer, prospect),
                        "kind": prospect.gap.gap.value,
                        "reason": wording.undecided_reason(prospect.gap),
                        "to_do": self._planner.for_gap(prospect.gap).words,
                        "shortfalls": self._shortfalls(prospect.estimate) if self._whole else [],
                    },
                )

    def _placed(self, estimate: Estimate, added: dict[str, Any]) -> PlacedStrategy:
        candidate = estimate.candidate
        pareto = candidate in self._answer.pareto
        return PlacedStrategy(self._subject, self._strategies[candidate], estimate, pareto, added)

    def _shortfalls(self, estimate: Estimate) -> list[dict[str, Any]]:
        return [_shortfall(own) for own in self._all_shortfalls.of(estimate.candidate, estimate.checks)]

    @cached_property
    def _all_shortfalls(self) -> AllShortfalls:
        # All considered ones, because the bounds of the answer hold together over all of them.
        return AllShortfalls([estimate.candidate for estimate in self._answer.considered], self._answer.budgets)


def _shortfall(shortfall: Shortfall) -> dict[str, Any]:
    """Return the fields of a `ShortfallOut`."""
    return {
        "budget": shortfall.budget,
        "percentile": shortfall.percentile,
        "limit": shortfall.limit,
        "estimate": shortfall.estimate,
        "over": shortfall.over,
        "bound": shortfall.bound,
        "bound_over": shortfall.bound_over,
        "items": shortfall.items,
        "best_bound": shortfall.best_bound,
        "items_needed": shortfall.items_needed,
    }


def _status(answer: RankedAnswer, infeasible: InfeasibleOut | None) -> AnswerStatus:
    # Under version 1 nothing may be recommended, and the best one is still as sure as it is.
    best = answer.recommendation or next(iter(answer.within), None)
    if infeasible is not None and best is None:
        return "infeasible"
    # What has no estimate at all is not estimated.
    if best is None or (answer.recommendation is None and best.gap is not None and best.gap.gap in WITHOUT_ESTIMATE):
        return "unmeasured"
    return _sureness(answer, best)["status"]


def _probability(answer: RankedAnswer) -> float | None:
    best = answer.recommendation or next(iter(answer.within), None)
    return answer.infeasible_probability if best is None else _sureness(answer, best)["probability"]


class _Sureness(TypedDict):
    """How sure it is that a strategy keeps all budgets, as an answer says it."""

    status: StrategyStatus
    probability: float | None


def _sureness(answer: RankedAnswer, prospect: Prospect) -> _Sureness:
    # Without a budget every strategy keeps all of them, and nothing is proven by that.
    if not answer.budgets.any_set:
        return {"status": "estimated", "probability": None}
    return {"status": prospect.status.value, "probability": prospect.probability}


def _infeasible(answer: RankedAnswer) -> InfeasibleOut | None:
    if answer.infeasible is not None:
        return InfeasibleOut(status=answer.infeasible.value, probability=answer.infeasible_probability)
    # A constraint excludes by what is known, which is as good as a proof.
    if answer.excluded and not answer.considered:
        return InfeasibleOut(status=Status.PROVEN.value, probability=None)
    return None


# At which the next start is bounded, and beyond which multiple of the estimate a bound says nothing.
_NEXT_START_LEVEL, _NO_BOUND = 0.95, 10


def _next_start_s(estimate: Estimate) -> float | None:
    bound_s = estimate.interval.next_start_s(_NEXT_START_LEVEL)
    return bound_s if bound_s is not None and bound_s <= _NO_BOUND * estimate.percentile_s else None


def _to_do(to_do: ToDo) -> ToDoOut:
    minutes = None if to_do.seconds is None else to_do.seconds / 60
    return ToDoOut(command=to_do.command, minutes=minutes, words=to_do.words)


def _low(comparison: Comparison | None) -> float | None:
    return comparison.readable_low if comparison is not None else None


def _high(comparison: Comparison | None) -> float | None:
    return comparison.readable_high if comparison is not None else None


def _budgets(budgets: Budgets, slo: str | None) -> dict[str, Any]:
    """Return the fields of a `BudgetsOut`."""
    return {
        "slo": slo,
        "latency": [{"percentile": budget.percentile, "max_s": budget.max_s} for budget in budgets.latency],
        "min_accuracy_pct": budgets.min_accuracy_pct,
        "max_accuracy_drop_pp": budgets.max_accuracy_drop_pp,
        "objective": budgets.objective,
        "confidence": budgets.confidence,
        "equivalent_within": budgets.equivalent_within,
        "cost_of_breaking": budgets.cost_of_breaking,
    }


def _relaxation(relaxation: Relaxation) -> RelaxationOut:
    change, gives = relaxation.change, relaxation.gives.candidate
    return RelaxationOut(
        field=change.field,
        key=change.key,
        percentile=change.percentile,
        from_value=list(change.before) if isinstance(change.before, tuple) else change.before,
        to_value=list(change.after) if isinstance(change.after, tuple) else change.after,
        cost=change.cost,
        operator=gives.operator,
        placement=gives.placement,
        words=relaxation_words(relaxation),
    )


def _excluded(excluded: ExcludedCandidate) -> ExcludedOut:
    return ExcludedOut(
        operator=excluded.candidate.operator,
        placement=excluded.candidate.placement,
        reason=wording.reasons(excluded.breaches),
        breaches=[_breach(breach) for breach in excluded.breaches],
    )


def _breach(breach: Breach) -> BreachOut:
    # The limit on bytes sent concerns no tier and no operator, so its name is empty.
    return BreachOut(constraint=breach.constraint, name=breach.name or None, limit=breach.limit, got=breach.got)


def _considered(answer: RankedAnswer) -> list[ConsideredOut]:
    best = answer.recommendation
    outcomes: list[tuple[Estimate, Outcome]] = [(best.estimate, "recommended")] if best else []
    outcomes += [(alternative.estimate, "alternative") for alternative in answer.alternatives]
    outcomes += [(near_miss.estimate, "near_miss") for near_miss in answer.other_near_misses]
    outcomes += [(undecided.estimate, "undecided") for undecided in answer.undecided]
    return [_considered_one(estimate.candidate, outcome) for estimate, outcome in outcomes]


def _considered_one(candidate: Candidate, outcome: Outcome) -> ConsideredOut:
    def made() -> ConsideredOut:
        return ConsideredOut(operator=candidate.operator, placement=candidate.placement, outcome=outcome)

    return _considered_rows.get(candidate, outcome, made)
