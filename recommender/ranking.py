"""Evidence and budgets in, a ranked answer out: pure functions over arrays, numbers only.

The words for these numbers are in `wording.py`; where the evidence comes from is `snapshot.py`'s business.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from catalog.statistics import (
    AccuracyDrop,
    BudgetCheck,
    Comparison,
    Feasibility,
    PercentileInterval,
    Question,
    RefusalKind,
    Samples,
    Verdict,
    compare,
    drop_within,
    feasibility,
    hits_at_least,
    inputs_needed,
    latency_within,
    percentile_intervals,
)

Objective = Literal["latency", "accuracy", "size", "sent"]

T = TypeVar("T")

# The same evidence gives the same answer: the draws of inputs start from one seed.
_SEED = 1
# Results kept per candidate; beyond it, whoever sends ever new questions does not fill the memory.
_REMEMBERED = 512
# What makes one near miss nearer than another: a percentage point of accuracy weighs as much as 10 % of latency.
_LATENCY_SHARE_PER_POINT = 0.1
# Accuracies are counts over some thousand items: a drop of "exactly 1.0" must not miss a budget of 1.0 by 1e-14.
_ACCURACY_SLACK_PP = 1e-9
# Nor must the mean of three rounds of 0.1 s, which is 0.10000000000000002 s, miss a budget of 0.1 s.
_LATENCY_SLACK = 1e-12


@dataclass(frozen=True)
class Accuracy:
    """How well a strategy predicts; `drop_pp` is against identity on the same validation items, None when unknown.

    What a promise needs beside the point estimates: `hits` (or, for mIoU, `short`: the drop against a flawless
    reference) for a floor, and the paired `drop` for a budget of accuracy lost.
    """

    metric: str
    accuracy_pct: float
    drop_pp: float | None
    items: int
    hits: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    short: AccuracyDrop | None = field(default=None, repr=False, compare=False)
    drop: AccuracyDrop | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One measured strategy.

    `latency_s` has one array per round, in order; `inputs` counts the distinct inputs of the round with the fewest,
    because repetitions of one input are not further evidence about other inputs. `input_index` says which input each
    latency is of, and `round_numbers` which round: strategies pair by both. Left out, the inputs of a round are taken
    to repeat in one order (`inputs` of them), and the rounds to be numbered from 0.
    """

    operator: str
    placement: str
    tiers: tuple[str, ...]
    latency_s: tuple[NDArray[np.float64], ...]
    inputs: int
    accuracy: Accuracy | None = None
    accuracy_missing: str | None = None
    size_bytes: int | None = None
    sent_bytes: float | None = None
    rounds_declared: int | None = None
    doubts: tuple[str, ...] = ()
    input_index: tuple[NDArray[np.int64], ...] | None = None
    round_numbers: tuple[int, ...] | None = None
    # Intervals and comparisons, computed once: the evidence behind a candidate never changes.
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def rounds(self) -> int:
        """How often it was measured on fresh tiers."""
        return len(self.latency_s)

    @property
    def samples(self) -> int:
        """How many single latencies there are."""
        return sum(values.size for values in self.latency_s)


@dataclass(frozen=True)
class LatencyBudget:
    """An upper limit on one percentile of the latency."""

    percentile: float
    max_s: float


@dataclass(frozen=True)
class Budgets:
    """The caller's limits; each is optional. `percentile` is the one to rank by and to report."""

    latency: tuple[LatencyBudget, ...] = ()
    min_accuracy_pct: float | None = None
    max_accuracy_drop_pp: float | None = None
    percentile: float = 90.0
    objective: Objective = "latency"
    confidence: float = 0.95
    equivalent_within: float = 0.05


@dataclass(frozen=True, eq=False)
class Estimate:
    """A candidate with the numbers that the question asked for."""

    candidate: Candidate
    median_s: float
    percentile: float
    percentile_s: float
    percentile_s_by_round: tuple[float, ...]
    interval: PercentileInterval
    feasibility: Feasibility | None = None


@dataclass(frozen=True, eq=False)
class Alternative:
    """A feasible strategy that was not chosen, against the chosen one.

    `latency_ratio` above 1 means slower than the recommendation; `accuracy_difference_pp` above 0 more accurate.
    `comparison` is with the fastest feasible strategy, simultaneous over all pairs of feasible ones; None for the
    fastest itself, where a tie was broken against it.
    """

    estimate: Estimate
    latency_ratio: float
    accuracy_difference_pp: float | None
    comparison: Comparison | None = None

    @property
    def relation(self) -> Verdict:
        """To the fastest: `equivalent`, `different` or `unresolved`."""
        return Verdict.EQUIVALENT if self.comparison is None else self.comparison.verdict


@dataclass(frozen=True)
class LatencyMiss:
    """A latency budget that does not hold."""

    budget: LatencyBudget
    got_s: float

    @property
    def over_s(self) -> float:
        """By how much."""
        return self.got_s - self.budget.max_s


@dataclass(frozen=True, eq=False)
class NearMiss:
    """An infeasible strategy and what it lacks; smaller `distance` is nearer."""

    estimate: Estimate
    latency: tuple[LatencyMiss, ...]
    accuracy_short_pp: float | None
    drop_over_pp: float | None
    distance: float


class Gap(StrEnum):
    """Why the evidence cannot decide about a candidate."""

    TOO_THIN = "too_thin"
    ONE_ROUND = "one_round"
    UNPROVEN = "unproven"
    ITEMS_MISSING = "items_missing"
    ACCURACY_MISSING = "accuracy_missing"
    DROP_MISSING = "drop_missing"


@dataclass(frozen=True, eq=False)
class Undecided:
    """Nothing measured speaks against this candidate, but not enough was measured to promise the budgets."""

    estimate: Estimate
    gap: Gap
    percentile: float | None = None
    inputs_needed: int | None = None
    check: BudgetCheck | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The best feasible strategy first, then everything else that was considered, each in its place."""

    budgets: Budgets
    recommendation: Estimate | None
    alternatives: tuple[Alternative, ...]
    near_misses: tuple[NearMiss, ...]
    undecided: tuple[Undecided, ...]
    considered: tuple[Estimate, ...]


def percentile_by_round(candidate: Candidate, percentile: float) -> tuple[float, ...]:
    """The percentile of the latency within each round, in seconds (linear between order statistics).

    Parameters
    ----------
    candidate : Candidate
        With at least one round of at least one sample.
    percentile : float
        Between 0 and 100.

    Returns
    -------
    tuple of float
        One value per round, in order.
    """
    return tuple(float(np.percentile(values, percentile)) for values in candidate.latency_s)


def samples_of(candidate: Candidate) -> Samples:
    """The latencies of a candidate as crossed rounds and inputs.

    Parameters
    ----------
    candidate : Candidate
        With at least one sample.

    Returns
    -------
    Samples
    """
    numbers = candidate.round_numbers or tuple(range(candidate.rounds))
    indices = candidate.input_index or tuple(
        np.arange(values.size) % max(candidate.inputs, 1) for values in candidate.latency_s
    )
    rounds = np.repeat(np.array(numbers, dtype=np.int64), [values.size for values in candidate.latency_s])
    return Samples.from_arrays(np.concatenate(candidate.latency_s), rounds, np.concatenate(indices))


def interval(candidate: Candidate, percentile: float) -> PercentileInterval:
    """A percentile of a candidate's latency with its 95 % interval, computed once per candidate.

    Parameters
    ----------
    candidate : Candidate
        With at least one sample.
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    PercentileInterval
        Without bounds, and with the refusal, where the evidence is too thin.
    """
    return _once(candidate, percentile, lambda: percentile_intervals(_samples(candidate), [percentile], rng=_SEED)[0])


def estimate(candidate: Candidate, percentile: float) -> Estimate:
    """A candidate's median and asked percentile: taken within each round, geometric mean over the rounds.

    Parameters
    ----------
    candidate : Candidate
        With at least one round of at least one sample.
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    Estimate
    """
    asked = interval(candidate, percentile)
    return Estimate(
        candidate=candidate,
        median_s=interval(candidate, 50.0).estimate_s,
        percentile=percentile,
        percentile_s=asked.estimate_s,
        percentile_s_by_round=asked.by_round_s,
        interval=asked,
    )


def recommend(candidates: Sequence[Candidate], budgets: Budgets) -> Answer:
    """Choose among measured strategies.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of one subject, measured in one environment; those without a sample are left out.
    budgets : Budgets
        No budget at all means: the best by the objective.

    Returns
    -------
    Answer
        Each considered candidate is in exactly one of recommendation, alternatives, near misses and undecided.

    Notes
    -----
    A budget holds when its one-sided bound keeps within it, at the level that makes the bounds of all candidates hold
    together (Sidak). A candidate whose *estimate* misses a budget is a near miss; one whose estimate is within and
    whose bound is not, or whose evidence supports no bound, is undecided. By latency, the feasible strategies that
    are equivalent to the fastest are tied with it, and ties are broken by accuracy, fewer tiers, smaller models and
    fewer bytes sent, in this order. Comparisons with the fastest are simultaneous over all pairs of feasible
    strategies, because which one is the fastest was seen first.

    Examples
    --------
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> fast = Candidate("quantized", "mobile", ("mobile",), (np.full(30, 0.1),) * 3, inputs=30)
    >>> answer = recommend([slow, fast], Budgets(latency=(LatencyBudget(90, 0.15),)))
    >>> answer.recommendation.candidate.operator, round(answer.near_misses[0].latency[0].over_s, 3)
    ('quantized', 0.05)
    """
    considered = [estimate(each, budgets.percentile) for each in candidates if each.samples]
    feasible: list[Estimate] = []
    missed: list[NearMiss] = []
    undecided: list[Undecided] = []
    for each in considered:
        miss = _near_miss(each, budgets)
        if miss is not None:
            missed.append(miss)
            continue
        gap = _missing(each, budgets)
        if gap is None:
            judged = _judged(each, budgets, candidates=len(considered))
            gap = _unproven(judged, budgets)
            if gap is None:
                feasible.append(judged)
                continue
        undecided.append(gap)
    feasible.sort(key=lambda each: _preference(each, budgets.objective))
    best, comparisons = _choose(feasible, budgets)
    return Answer(
        budgets=budgets,
        recommendation=best,
        alternatives=tuple(
            _alternative(each, best, comparisons.get(each.candidate)) for each in feasible if each is not best
        )
        if best
        else (),
        near_misses=tuple(sorted(missed, key=lambda each: each.distance)),
        undecided=tuple(sorted(undecided, key=lambda each: _preference(each.estimate, budgets.objective))),
        considered=tuple(considered),
    )


def _samples(candidate: Candidate) -> Samples:
    return _once(candidate, "samples", lambda: samples_of(candidate))


def _once(candidate: Candidate, key: Any, compute: Callable[[], T]) -> T:
    """Remembered with the candidate; forgotten together when callers have asked many different questions."""
    known: T | None = candidate.memo.get(key)
    if known is None:
        known = compute()
        if len(candidate.memo) >= _REMEMBERED:
            candidate.memo.clear()
        candidate.memo[key] = known
    return known


def _choose(feasible: Sequence[Estimate], budgets: Budgets) -> tuple[Estimate | None, dict[Candidate, Comparison]]:
    """The best, and how each of the others compares with the fastest."""
    if not feasible:
        return None, {}
    fastest = min(feasible, key=lambda each: _preference(each, "latency")).candidate
    number = max(1, len(feasible) * (len(feasible) - 1) // 2)
    comparisons = {
        each.candidate: _compared(each.candidate, fastest, budgets, number)
        for each in feasible
        if each.candidate is not fastest
    }
    if budgets.objective != "latency":
        return feasible[0], comparisons
    tied = [
        each
        for each in feasible
        if each.candidate is fastest or comparisons[each.candidate].verdict is Verdict.EQUIVALENT
    ]
    return min(tied, key=_tie_break), comparisons


def _compared(one: Candidate, fastest: Candidate, budgets: Budgets, comparisons: int) -> Comparison:
    question = Question(budgets.percentile, budgets.equivalent_within, budgets.confidence)
    key = (fastest, question, comparisons)
    return _once(
        one, key, lambda: compare(_samples(one), _samples(fastest), question, comparisons=comparisons, rng=_SEED)
    )


def _judged(each: Estimate, budgets: Budgets, *, candidates: int) -> Estimate:
    """With every budget checked at the joint confidence; call it when nothing is missing."""
    level, accuracy = budgets.confidence, each.candidate.accuracy
    checks = [
        latency_within(
            interval(each.candidate, budget.percentile), budget.max_s, confidence_level=level, candidates=candidates
        )
        for budget in budgets.latency
    ]
    floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if floor is not None and accuracy is not None:
        checks.append(_floor(accuracy, floor, level, candidates))
    if most is not None and accuracy is not None and accuracy.drop is not None:
        checks.append(drop_within(accuracy.drop, most, confidence_level=level, candidates=candidates))
    return replace(each, feasibility=feasibility(checks, candidates=candidates))


def _floor(accuracy: Accuracy, floor: float, level: float, candidates: int) -> BudgetCheck:
    if accuracy.hits is not None:
        return hits_at_least(accuracy.hits, floor, confidence_level=level, candidates=candidates)
    assert accuracy.short is not None
    check = drop_within(accuracy.short, 100 - floor, confidence_level=level, candidates=candidates)
    assert check.bound is not None
    return replace(check, limit=floor, estimate=100 - check.estimate, bound=100 - check.bound)


def _unproven(each: Estimate, budgets: Budgets) -> Undecided | None:
    """The first budget whose bound does not keep within it; with its percentile when it is one of latency."""
    checks = each.feasibility.checks if each.feasibility else ()
    for position, check in enumerate(checks):
        if not check.holds:
            of_latency = position < len(budgets.latency)
            return Undecided(
                each, Gap.UNPROVEN, budgets.latency[position].percentile if of_latency else None, check=check
            )
    return None


def _tie_break(each: Estimate) -> tuple[float, int, float, float, float]:
    """The declared rules: accuracy, fewer tiers, smaller, less data sent; the faster one last."""
    it = each.candidate
    return (
        -it.accuracy.accuracy_pct if it.accuracy else math.inf,
        len(it.tiers),
        math.inf if it.size_bytes is None else it.size_bytes,
        math.inf if it.sent_bytes is None else it.sent_bytes,
        each.percentile_s,
    )


def _preference(each: Estimate, objective: Objective) -> tuple[float, float, float, int, float, str, str]:
    """Smaller is better; the names last, so that an exact tie is broken the same way every time."""
    it = each.candidate
    inaccuracy = -it.accuracy.accuracy_pct if it.accuracy else math.inf
    size = math.inf if it.size_bytes is None else it.size_bytes
    sent = math.inf if it.sent_bytes is None else it.sent_bytes
    first = {"latency": each.percentile_s, "accuracy": inaccuracy, "size": size, "sent": sent}[objective]
    return first, each.percentile_s, inaccuracy, len(it.tiers), size, it.operator, it.placement


def _alternative(each: Estimate, best: Estimate, comparison: Comparison | None) -> Alternative:
    mine, other = best.candidate.accuracy, each.candidate.accuracy
    return Alternative(
        estimate=each,
        latency_ratio=each.percentile_s / best.percentile_s,
        accuracy_difference_pp=other.accuracy_pct - mine.accuracy_pct if mine and other else None,
        comparison=comparison,
    )


def _near_miss(each: Estimate, budgets: Budgets) -> NearMiss | None:
    late = tuple(
        LatencyMiss(budget, got_s)
        for budget in budgets.latency
        if (got_s := _at(each, budget.percentile)) > budget.max_s * (1 + _LATENCY_SLACK)
    )
    accuracy = each.candidate.accuracy
    short_pp = _over(budgets.min_accuracy_pct, accuracy.accuracy_pct if accuracy else None)
    drop_pp = _over(accuracy.drop_pp if accuracy else None, budgets.max_accuracy_drop_pp)
    if not late and short_pp is None and drop_pp is None:
        return None
    shares = [math.log(miss.got_s) - math.log(miss.budget.max_s) for miss in late]
    shares += [points * _LATENCY_SHARE_PER_POINT for points in (short_pp, drop_pp) if points is not None]
    return NearMiss(each, late, short_pp, drop_pp, distance=sum(shares))


def _over(value: float | None, limit: float | None) -> float | None:
    """By how much a value exceeds a limit; None when it does not, or when either is unknown."""
    if value is None or limit is None or value - limit <= _ACCURACY_SLACK_PP:
        return None
    return value - limit


def _missing(each: Estimate, budgets: Budgets) -> Undecided | None:
    """What has to be measured before any bound can be given."""
    accuracy = each.candidate.accuracy
    floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if accuracy is None and (floor is not None or most is not None):
        return Undecided(each, Gap.ACCURACY_MISSING)
    if accuracy is not None and most is not None and accuracy.drop is None:
        return Undecided(each, Gap.DROP_MISSING if accuracy.drop_pp is None else Gap.ITEMS_MISSING)
    if accuracy is not None and floor is not None and accuracy.hits is None and accuracy.short is None:
        return Undecided(each, Gap.ITEMS_MISSING)
    for budget in sorted(budgets.latency, key=lambda each: -each.percentile):
        refusal = interval(each.candidate, budget.percentile).refusal
        if refusal is not None:
            kind = Gap.ONE_ROUND if refusal.kind is RefusalKind.ONE_ROUND else Gap.TOO_THIN
            return Undecided(each, kind, budget.percentile, refusal.inputs_needed)
    return None


def _at(each: Estimate, percentile: float) -> float:
    return interval(each.candidate, percentile).estimate_s


__all__ = [
    "Accuracy",
    "Alternative",
    "Answer",
    "Budgets",
    "Candidate",
    "Estimate",
    "Gap",
    "LatencyBudget",
    "LatencyMiss",
    "NearMiss",
    "Objective",
    "Undecided",
    "estimate",
    "inputs_needed",
    "interval",
    "percentile_by_round",
    "recommend",
    "samples_of",
]
