"""Evidence and budgets in, a ranked answer out."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from weakref import ref

from catalog.statistics.comparison import Comparison, Question, compare
from catalog.statistics.outcomes import ComparisonOutcome
from recommender.ranking.candidates import (
    SEED,
    Candidate,
    CandidateCache,
    Estimate,
    estimate,
    interval,
    samples_of,
    widened,
)
from recommender.ranking.feasibility import judge_all
from recommender.ranking.model import (
    Alternative,
    Budgets,
    Constraints,
    ExcludedCandidate,
    NearMiss,
    Objective,
    RankedAnswer,
    UndecidedCandidate,
    breaches,
)
from recommender.ranking.relaxations import relaxations


def pareto_front(points: Sequence[tuple[float, float | None]]) -> frozenset[int]:
    """Return the indices of the points that no other dominates.

    Parameters
    ----------
    points : sequence of (float, float or None)
        A cost, smaller is better, and a gain, larger is better; without a gain a point is never on the front.

    Returns
    -------
    frozenset of int
        Points that are equal in both are on the front together.

    Examples
    --------
    >>> sorted(pareto_front([(1.0, 80.0), (2.0, 90.0), (3.0, 85.0), (2.0, 90.0), (0.5, None)]))
    [0, 1, 3]
    """
    # In order of cost, a point is on the front exactly if it gains more than all before it; equal points all are.
    placed = sorted((cost, -gain, index) for index, (cost, gain) in enumerate(points) if gain is not None)
    front: list[int] = []
    best: tuple[float, float] | None = None
    for cost, loss, index in placed:
        if best is None or loss < best[1] or (cost, loss) == best:
            best = (cost, loss)
            front.append(index)
    return frozenset(front)


_FREE = Constraints()
_comparisons: CandidateCache[Comparison] = CandidateCache()


def recommend(candidates: Sequence[Candidate], budgets: Budgets, *, constraints: Constraints = _FREE) -> RankedAnswer:
    """Choose among measured strategies.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of one subject, measured in one environment; those without a sample are left out.
    budgets : Budgets
        No budget at all means: the best by the objective.
    constraints : Constraints, optional

    Returns
    -------
    RankedAnswer
        Each candidate is in exactly one of recommendation, alternatives, near misses, undecided and excluded. Without
        a recommendation, `relaxations` says which single change leads to one.

    Notes
    -----
    A budget holds when its one-sided bound keeps within it, at a level that makes what is said of all candidates hold
    together (step-down, `judge_all`); candidates that a constraint excludes are not among them, because they are
    excluded by what is known before. A candidate whose *estimate* misses a budget is a near miss; one whose estimate
    is within and whose bound is not, or whose evidence supports no bound, is undecided. By latency, the feasible
    strategies that are equivalent to the fastest are tied with it, and ties are broken by accuracy, fewer tiers,
    smaller models and fewer bytes sent, in this order. A changed model whose answers were not judged, and whose outputs
    are far from identity's or not compared with them, is chosen only where no other is feasible. Comparisons
    with the fastest are simultaneous over all pairs of feasible strategies, because which one is the fastest was seen
    first.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking import LatencyBudget
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> fast = Candidate("quantized", "mobile", ("mobile",), (np.full(30, 0.1),) * 3, inputs=30)
    >>> answer = recommend([slow, fast], Budgets(latency=(LatencyBudget(90, 0.15),)))
    >>> answer.recommendation.candidate.operator, round(answer.near_misses[0].latency[0].over_s, 3)
    ('quantized', 0.05)
    """
    measured = [candidate for candidate in candidates if candidate.samples]
    # Constraints first: an excluded strategy must neither be chosen nor count among those that hold together.
    admitted, excluded = _divided(measured, constraints)
    considered = [estimate(candidate, budgets.percentile) for candidate in admitted]
    placed = judge_all(considered, budgets)
    feasible = [item for item in placed if isinstance(item, Estimate)]
    missed = [item for item in placed if isinstance(item, NearMiss)]
    undecided = [item for item in placed if isinstance(item, UndecidedCandidate)]
    feasible.sort(key=lambda estimate: _preference(estimate, budgets.objective))
    best = _best(feasible, budgets) if feasible else None
    return RankedAnswer(
        budgets=budgets,
        recommendation=best,
        alternatives=tuple(_alternatives(feasible, best, budgets)) if best else (),
        near_misses=tuple(sorted(missed, key=lambda near_miss: near_miss.distance)),
        undecided=tuple(sorted(undecided, key=lambda candidate: _preference(candidate.estimate, budgets.objective))),
        considered=tuple(considered),
        excluded=tuple(excluded),
        relaxations=() if best else relaxations(measured, budgets, constraints, _Rules(measured)),
        pareto=_pareto(considered),
    )


class _Rules:
    """This module's rules as `relaxations` applies them."""

    def __init__(self, measured: Sequence[Candidate]) -> None:
        self._measured = measured

    def admitted(self, constraints: Constraints) -> Sequence[Candidate]:
        """Return the candidates that the constraints admit."""
        return _divided(self._measured, constraints)[0]

    def feasible(self, budgets: Budgets, constraints: Constraints) -> Sequence[Estimate]:
        """Return the candidates that hold every budget and break no constraint."""
        admitted, _ = _divided(self._measured, constraints)
        placed = judge_all([estimate(candidate, budgets.percentile) for candidate in admitted], budgets)
        return [item for item in placed if isinstance(item, Estimate)]

    def chosen(self, feasible: Sequence[Estimate], budgets: Budgets) -> Estimate:
        """Return the feasible strategy to recommend."""
        return _best(feasible, budgets)


def _divided(
    measured: Sequence[Candidate], constraints: Constraints
) -> tuple[list[Candidate], list[ExcludedCandidate]]:
    """Separate the candidates that may be chosen from those that may not."""
    if not constraints.any_set:
        return list(measured), []
    broken = {candidate: breaches(candidate, constraints) for candidate in measured}
    return (
        [candidate for candidate in measured if not broken[candidate]],
        [ExcludedCandidate(candidate, broken[candidate]) for candidate in measured if broken[candidate]],
    )


def _best(feasible: Sequence[Estimate], budgets: Budgets) -> Estimate:
    """Choose by the objective; among those equivalent to the fastest, by the declared rules.

    What may answer anything is last: how fast or small it is says nothing of its use.
    """
    # A faster strategy whose answers nothing vouches for must not win by default; alone it is still the answer.
    eligible = [estimate for estimate in feasible if not estimate.candidate.quality_open] or feasible
    if budgets.objective != "latency":
        return min(eligible, key=lambda estimate: _preference(estimate, budgets.objective))
    fastest = _fastest(eligible)
    tied = [
        estimate
        for estimate in eligible
        if estimate is fastest
        # All the feasible count, because which of them are eligible or fastest was decided after seeing them.
        or _compared(estimate, fastest, budgets, len(feasible)).verdict is ComparisonOutcome.EQUIVALENT
    ]
    # Ties are with the fastest, not with each other: "equivalent" is not transitive, and a chain could drift.
    return min(tied, key=_tie_break)


def _alternatives(feasible: Sequence[Estimate], best: Estimate, budgets: Budgets) -> Iterator[Alternative]:
    """Yield the other feasible strategies, compared with the fastest and with the best."""
    fastest = _fastest(feasible)
    mine = best.candidate.accuracy
    for alternative in feasible:
        if alternative is best:
            continue
        other = alternative.candidate.accuracy
        yield Alternative(
            estimate=alternative,
            latency_ratio=alternative.percentile_s / best.percentile_s,
            accuracy_difference_pp=other.accuracy_pct - mine.accuracy_pct if mine and other else None,
            comparison=None if alternative is fastest else _compared(alternative, fastest, budgets, len(feasible)),
            against_best=_compared(alternative, best, budgets, len(feasible)),
        )


def _fastest(feasible: Sequence[Estimate]) -> Estimate:
    return min(feasible, key=lambda estimate: _preference(estimate, "latency"))


def _pareto(considered: Sequence[Estimate]) -> frozenset[Candidate]:
    """Return the Pareto front; agreement with identity is not a gain: it says how alike, not how right."""
    points = [
        (
            estimate.percentile_s,
            accuracy.accuracy_pct if (accuracy := estimate.candidate.accuracy) and accuracy.from_labels else None,
        )
        for estimate in considered
    ]
    return frozenset(considered[index].candidate for index in pareto_front(points))


def _compared(one: Estimate, other: Estimate, budgets: Budgets, feasible: int) -> Comparison:
    """Compare simultaneously over all pairs of the feasible: which pair to compare was chosen after seeing them."""
    question = _question(budgets.percentile, budgets.equivalent_within, budgets.confidence)
    # All pairs, not those with the fastest alone: the fastest was found by looking.
    pairs = max(1, feasible * (feasible - 1) // 2)
    first, second = one.candidate, other.candidate
    # The number of pairs is in the key, because the level of the interval depends on it.
    return _comparisons.get(first, (ref(second), question, pairs), lambda: _compare(first, second, question, pairs))


@lru_cache(maxsize=64)
def _question(percentile: float, equivalent_within: float, confidence: float) -> Question:
    return Question(percentile, equivalent_within, confidence)


def _compare(first: Candidate, second: Candidate, question: Question, pairs: int) -> Comparison:
    comparison = compare(samples_of(first), samples_of(second), question, comparisons=pairs, rng=SEED)
    return widened(comparison, *(interval(candidate, question.percentile).estimate for candidate in (first, second)))


def _tie_break(estimate: Estimate) -> tuple[float, int, float, float, float]:
    """Order by the declared rules: accuracy, fewer tiers, smaller, less data sent; the faster one last."""
    candidate = estimate.candidate
    return (
        # What is not known counts as worst, here and below.
        -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf,
        len(candidate.tiers),
        math.inf if candidate.size_bytes is None else candidate.size_bytes,
        math.inf if candidate.sent_bytes is None else candidate.sent_bytes,
        estimate.percentile_s,
    )


def _preference(estimate: Estimate, objective: Objective) -> tuple[float, float, float, int, float, str, str]:
    """Order by the objective, smaller first; names come last, so that exact ties break the same way each time."""
    candidate = estimate.candidate
    inaccuracy = -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf
    size = math.inf if candidate.size_bytes is None else candidate.size_bytes
    sent = math.inf if candidate.sent_bytes is None else candidate.sent_bytes
    cpu = math.inf if candidate.client_cpu_s is None else candidate.client_cpu_s
    first = {"latency": estimate.percentile_s, "accuracy": inaccuracy, "size": size, "sent": sent, "cpu": cpu}[
        objective
    ]
    return first, estimate.percentile_s, inaccuracy, len(candidate.tiers), size, candidate.operator, candidate.placement
