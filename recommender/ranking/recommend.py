"""Evidence and budgets in, a ranked answer out."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from weakref import ref

from catalog.statistics import Comparison, ComparisonOutcome, Question, compare
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
    Answer,
    Budgets,
    Constraints,
    Excluded,
    NearMiss,
    Objective,
    Undecided,
    breaches,
)
from recommender.ranking.relaxations import relaxations


def pareto_front(points: Sequence[tuple[float, float | None]]) -> frozenset[int]:
    """Indices of the points that no other dominates.

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


def recommend(candidates: Sequence[Candidate], budgets: Budgets, *, constraints: Constraints = _FREE) -> Answer:
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
    Answer
        Each candidate is in exactly one of recommendation, alternatives, near misses, undecided and excluded. Without
        a recommendation, `relaxations` says which single change leads to one.

    Notes
    -----
    A budget holds when its one-sided bound keeps within it, at a level that makes what is said of all candidates hold
    together (step-down, `judge_all`); candidates that a constraint excludes are not among them, because they are
    excluded by what is known before. A candidate whose *estimate* misses a budget is a near miss; one whose estimate
    is within and whose bound is not, or whose evidence supports no bound, is undecided. By latency, the feasible
    strategies that are equivalent to the fastest are tied with it, and ties are broken by accuracy, fewer tiers,
    smaller models and fewer bytes sent, in this order. A changed model whose answers nobody judged, and whose outputs
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
    admitted, excluded = _divided(measured, constraints)
    considered = [estimate(each, budgets.percentile) for each in admitted]
    placed = judge_all(considered, budgets)
    feasible = [each for each in placed if isinstance(each, Estimate)]
    missed = [each for each in placed if isinstance(each, NearMiss)]
    undecided = [each for each in placed if isinstance(each, Undecided)]
    feasible.sort(key=lambda each: _preference(each, budgets.objective))
    best = _best(feasible, budgets) if feasible else None
    return Answer(
        budgets=budgets,
        recommendation=best,
        alternatives=tuple(_alternatives(feasible, best, budgets)) if best else (),
        near_misses=tuple(sorted(missed, key=lambda each: each.distance)),
        undecided=tuple(sorted(undecided, key=lambda each: _preference(each.estimate, budgets.objective))),
        considered=tuple(considered),
        excluded=tuple(excluded),
        relaxations=() if best else relaxations(measured, budgets, constraints, _Rules(measured)),
        pareto=_pareto(considered),
    )


class _Rules:
    """This module's rules as `relaxations` asks them."""

    def __init__(self, measured: Sequence[Candidate]) -> None:
        self._measured = measured

    def admitted(self, constraints: Constraints) -> Sequence[Candidate]:
        """The candidates that the constraints let through."""
        return _divided(self._measured, constraints)[0]

    def feasible(self, budgets: Budgets, constraints: Constraints) -> Sequence[Estimate]:
        """Those that hold every budget and break no constraint."""
        admitted, _ = _divided(self._measured, constraints)
        placed = judge_all([estimate(each, budgets.percentile) for each in admitted], budgets)
        return [each for each in placed if isinstance(each, Estimate)]

    def chosen(self, feasible: Sequence[Estimate], budgets: Budgets) -> Estimate:
        """The one of them to recommend."""
        return _best(feasible, budgets)


def _divided(measured: Sequence[Candidate], constraints: Constraints) -> tuple[list[Candidate], list[Excluded]]:
    """Those that may be chosen, and those that may not."""
    if not constraints.given:
        return list(measured), []
    broken = {each: breaches(each, constraints) for each in measured}
    return (
        [each for each in measured if not broken[each]],
        [Excluded(each, broken[each]) for each in measured if broken[each]],
    )


def _best(feasible: Sequence[Estimate], budgets: Budgets) -> Estimate:
    """By the objective; among those equivalent to the fastest, by the declared rules.

    What may answer anything is last: how fast or small it is says nothing of its use.
    """
    eligible = [each for each in feasible if not each.candidate.quality_open] or feasible
    if budgets.objective != "latency":
        return min(eligible, key=lambda each: _preference(each, budgets.objective))
    fastest = _fastest(eligible)
    tied = [
        each
        for each in eligible
        if each is fastest or _compared(each, fastest, budgets, len(feasible)).verdict is ComparisonOutcome.EQUIVALENT
    ]
    return min(tied, key=_tie_break)


def _alternatives(feasible: Sequence[Estimate], best: Estimate, budgets: Budgets) -> Iterator[Alternative]:
    """The other feasible ones, each against the fastest and against the best."""
    fastest = _fastest(feasible)
    mine = best.candidate.accuracy
    for each in feasible:
        if each is best:
            continue
        other = each.candidate.accuracy
        yield Alternative(
            estimate=each,
            latency_ratio=each.percentile_s / best.percentile_s,
            accuracy_difference_pp=other.accuracy_pct - mine.accuracy_pct if mine and other else None,
            comparison=None if each is fastest else _compared(each, fastest, budgets, len(feasible)),
            against_best=_compared(each, best, budgets, len(feasible)),
        )


def _fastest(feasible: Sequence[Estimate]) -> Estimate:
    return min(feasible, key=lambda each: _preference(each, "latency"))


def _pareto(considered: Sequence[Estimate]) -> frozenset[Candidate]:
    """Agreement with identity is no gain: it says how alike, not how right."""
    points = [
        (each.percentile_s, it.accuracy_pct if (it := each.candidate.accuracy) and it.from_labels else None)
        for each in considered
    ]
    return frozenset(considered[index].candidate for index in pareto_front(points))


def _compared(one: Estimate, other: Estimate, budgets: Budgets, feasible: int) -> Comparison:
    """Simultaneous over all pairs of the feasible, because which of them are compared was seen first."""
    question = _question(budgets.percentile, budgets.equivalent_within, budgets.confidence)
    pairs = max(1, feasible * (feasible - 1) // 2)
    first, second = one.candidate, other.candidate
    return _comparisons.get(first, (ref(second), question, pairs), lambda: _compare(first, second, question, pairs))


@lru_cache(maxsize=64)
def _question(percentile: float, equivalent_within: float, confidence: float) -> Question:
    return Question(percentile, equivalent_within, confidence)


def _compare(first: Candidate, second: Candidate, question: Question, pairs: int) -> Comparison:
    found = compare(samples_of(first), samples_of(second), question, comparisons=pairs, rng=SEED)
    return widened(found, *(interval(each, question.percentile).estimate for each in (first, second)))


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
    cpu = math.inf if it.client_cpu_s is None else it.client_cpu_s
    first = {"latency": each.percentile_s, "accuracy": inaccuracy, "size": size, "sent": sent, "cpu": cpu}[objective]
    return first, each.percentile_s, inaccuracy, len(it.tiers), size, it.operator, it.placement
