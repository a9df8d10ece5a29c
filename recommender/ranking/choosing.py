"""Evidence and budgets in, a ranked answer out."""

import math
from collections.abc import Sequence

from catalog.statistics import Comparison, Question, Verdict, compare
from recommender.ranking.answers import Alternative, Answer, Budgets, NearMiss, Objective, Undecided
from recommender.ranking.candidates import SEED, Candidate, Estimate, estimate, interval, remembered, samples_of
from recommender.ranking.judging import place
from recommender.ranking.predictions import widened


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
    >>> import numpy as np
    >>> from recommender.ranking import LatencyBudget
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> fast = Candidate("quantized", "mobile", ("mobile",), (np.full(30, 0.1),) * 3, inputs=30)
    >>> answer = recommend([slow, fast], Budgets(latency=(LatencyBudget(90, 0.15),)))
    >>> answer.recommendation.candidate.operator, round(answer.near_misses[0].latency[0].over_s, 3)
    ('quantized', 0.05)
    """
    considered = [estimate(each, budgets.percentile) for each in candidates if each.samples]
    placed = [place(each, budgets, candidates=len(considered)) for each in considered]
    feasible = [each for each in placed if isinstance(each, Estimate)]
    missed = [each for each in placed if isinstance(each, NearMiss)]
    undecided = [each for each in placed if isinstance(each, Undecided)]
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
    return remembered(one, key, lambda: _compare(one, fastest, question, comparisons))


def _compare(one: Candidate, fastest: Candidate, question: Question, comparisons: int) -> Comparison:
    found = compare(samples_of(one), samples_of(fastest), question, comparisons=comparisons, rng=SEED)
    return widened(found, *(interval(each, question.percentile).estimate for each in (one, fastest)))


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
