"""Which budgets a candidate misses, which it holds, and which nothing can be said about."""

import math
from dataclasses import replace

from catalog.statistics import BudgetCheck, RefusalKind, drop_within, feasibility, hits_at_least, latency_within
from recommender.ranking.answers import Budgets, Gap, LatencyMiss, NearMiss, Undecided
from recommender.ranking.candidates import Accuracy, Estimate, interval

# What makes one near miss nearer than another: a percentage point of accuracy weighs as much as 10 % of latency.
_LATENCY_SHARE_PER_POINT = 0.1
# Accuracies are counts over some thousand items: a drop of "exactly 1.0" must not miss a budget of 1.0 by 1e-14.
_ACCURACY_SLACK_PP = 1e-9
# Nor must the mean of three rounds of 0.1 s, which is 0.10000000000000002 s, miss a budget of 0.1 s.
_LATENCY_SLACK = 1e-12


def place(each: Estimate, budgets: Budgets, *, candidates: int) -> Estimate | NearMiss | Undecided:
    """Where a candidate belongs: an estimate with its checks is feasible.

    Parameters
    ----------
    each : Estimate
    budgets : Budgets
    candidates : int
        Of the question: the bounds of all of them hold together.

    Returns
    -------
    Estimate or NearMiss or Undecided
    """
    found = _near_miss(each, budgets) or _missing(each, budgets)
    if found is not None:
        return found
    judged = _judged(each, budgets, candidates=candidates)
    return _unproven(judged, budgets) or judged


def _near_miss(each: Estimate, budgets: Budgets) -> NearMiss | None:
    late = tuple(
        LatencyMiss(budget, got_s)
        for budget in budgets.latency
        if (got_s := _at(each, budget.percentile)) > budget.max_s * (1 + _LATENCY_SLACK)
    )
    accuracy = _accuracy(each)
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
    accuracy = _accuracy(each)
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


def _at(each: Estimate, percentile: float) -> float:
    return interval(each.candidate, percentile).estimate_s


def _accuracy(each: Estimate) -> Accuracy | None:
    """What an accuracy budget can be held against."""
    found = each.candidate.accuracy
    return found if found is not None and found.from_labels else None
