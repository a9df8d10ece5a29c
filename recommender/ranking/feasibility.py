"""Which budgets a candidate misses, which it is proven to meet, and what is open."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from weakref import ref

from catalog.statistics.feasibility import (
    BudgetCheck,
    Feasibility,
    confidence_below,
    drop_within,
    floor_from_drop,
    hits_at_least,
    latency_within,
    step_down,
)
from catalog.statistics.intervals import IntervalRefusal, PercentileInterval, RefusalKind
from catalog.statistics.outcomes import sidak
from catalog.statistics.variances import moderated
from recommender.ranking.candidates import AccuracyMeasurement, Candidate, CandidateCache, Estimate, interval
from recommender.ranking.model import Budgets, Gap, LatencyMiss, NearMiss, Prospect, Status, UndecidedCandidate, Unit
from recommender.ranking.prospects import drop_of, labelled_accuracy, loss, probability, status_of

# What makes one near miss nearer than another: a percentage point of accuracy weighs as much as 10 % of latency.
_LATENCY_SHARE_PER_POINT = 0.1
# Accuracies are counts over some thousand items: a drop of "exactly 1.0" must not miss a budget of 1.0 by 1e-14.
_ACCURACY_SLACK_PP = 1e-9
# Nor must the mean of three rounds of 0.1 s, which is 0.10000000000000002 s, miss a budget of 0.1 s.
_LATENCY_SLACK = 1e-12

# One result per candidate of a group, in its order; kept with the group's first candidate.
_steadied_intervals: CandidateCache[tuple[PercentileInterval, ...]] = CandidateCache()
_accuracy_shares: CandidateCache[tuple[int, ...]] = CandidateCache()


def judge_all(estimates: Sequence[Estimate], budgets: Budgets) -> list[Prospect | NearMiss]:
    """Decide where each candidate belongs, and how sure that is.

    Parameters
    ----------
    estimates : sequence of Estimate
        All candidates of the question: what is promised of them holds together.
    budgets : Budgets

    Returns
    -------
    list of Prospect or NearMiss
        In the order given.

    Notes
    -----
    Bounds of latencies take the variance across rounds steadied by that of the other candidates (`moderated`); the
    intervals shown with an estimate are the candidate's own. The surest first (`step_down`). Near misses and candidates
    that nothing can be said about count as candidates, but are never among the surest.

    Candidates that share one accuracy (an operator on several tiers) are wrong about it together or not at all: of n
    that share it, k remaining, it may err at n shares of k where each latency errs at one. Wrong assertions are then at
    most as many shares as there are wrong candidates, all of which remain at the first wrong one.
    """
    candidates = [estimate.candidate for estimate in estimates]
    steady = [steadied(candidates, budget.percentile) for budget in budgets.latency]
    bounds = [[intervals[candidate] for intervals in steady] for candidate in candidates]
    misses = [_near_miss(*judged, budgets) for judged in zip(estimates, bounds, strict=True)]
    gaps = [None if miss else _missing(estimate, budgets) for estimate, miss in zip(estimates, misses, strict=True)]
    shared = sharing(candidates)
    checks = [
        _Checks((), (), 1, len(candidates))
        if miss or gap
        else _checks(candidate, budgets, own, shared[candidate], len(candidates))
        for candidate, own, miss, gap in zip(candidates, bounds, misses, gaps, strict=True)
    ]

    # Near misses and undecided candidates stay in the family with confidence 0: leaving them out after seeing their
    # estimates would be a choice by the result.
    def confidence(row: int, tests: int) -> float:
        return 0.0 if misses[row] or gaps[row] else checks[row].among(tests).confidence(budgets)

    sure = [confidence(row, len(candidates)) for row in range(len(candidates))]
    steps = step_down(sure, confidence_level=budgets.confidence, among=confidence)
    levels, joints, remaining = steps.levels.tolist(), steps.joint.tolist(), steps.remaining.tolist()
    return [
        misses[row]
        or _prospect(
            estimate, budgets, bounds[row], gaps[row] or checks[row].among(remaining[row]), levels[row], joints[row]
        )
        for row, estimate in enumerate(estimates)
    ]


@dataclass(frozen=True)
class _Checks:
    """Of one candidate: its budgets of latency, those of accuracy, and how many candidates share its accuracy.

    Latencies are judged as those of one of so many `tests`.
    """

    latency: tuple[BudgetCheck, ...]
    accuracy: tuple[BudgetCheck, ...]
    sharing: int
    tests: int
    others: "dict[int, _Checks]" = field(default_factory=dict, compare=False, repr=False)

    def confidence(self, budgets: Budgets) -> float:
        """Return the confidence for stepping down; an accuracy that alone does not hold puts it below any level."""
        of_latency = min((check.confidence for check in self.latency), default=1.0)
        of_accuracy = min((check.confidence for check in self.accuracy), default=1.0)
        if of_accuracy >= budgets.confidence:
            # Judged once for all that share it, at level ** sharing (`at`); the root puts it on the scale of one test.
            of_accuracy **= 1 / self.sharing
        return min(of_latency, of_accuracy)

    def among(self, tests: int) -> "_Checks":
        """Judge the latencies as those of one of so many candidates: what they share errs once for all."""
        if tests == self.tests:
            return self
        # Kept: stepping down asks for the same number as what is said afterwards.
        if tests not in self.others:
            latency = tuple(check.among(tests) for check in self.latency)
            self.others[tests] = _Checks(latency, self.accuracy, self.sharing, tests)
        return self.others[tests]

    def at(self, level: float, budgets: Budgets) -> tuple[BudgetCheck, ...]:
        """Judge at the level of a step: once for all that share an accuracy, and never below the question's level."""
        of_accuracy = max(level**self.sharing, budgets.confidence)
        return (*(check.at(level) for check in self.latency), *(check.at(of_accuracy) for check in self.accuracy))


def _prospect(
    estimate: Estimate,
    budgets: Budgets,
    latency: Sequence[PercentileInterval],
    judged: UndecidedCandidate | _Checks,
    level: float,
    joint: float,
) -> Prospect:
    """Say what may be expected of a candidate whose estimates are within all budgets."""
    chance = probability(estimate.candidate, budgets, latency)
    gap: UndecidedCandidate | None
    if isinstance(judged, UndecidedCandidate):
        gap, joint = judged, 0.0
    else:
        checks = judged.at(level, budgets)
        # An accuracy must hold by itself at whatever level is reported (docs/statistics.md, "Budgets").
        joint = min([joint, *(check.confidence for check in judged.accuracy)])
        feasible = all(check.holds for check in checks)
        estimate = replace(estimate, feasibility=Feasibility(feasible=feasible, joint_confidence=joint, checks=checks))
        gap = _unproven(estimate, budgets)
    status = Status.PROVEN if gap is None else status_of(chance)
    return Prospect(estimate, status, chance, loss(estimate, budgets, chance), gap, joint)


def _near_miss(estimate: Estimate, latency: Sequence[PercentileInterval], budgets: Budgets) -> NearMiss | None:
    late = tuple(
        LatencyMiss(budget, got_s)
        for budget in budgets.latency
        if (got_s := _at(estimate, budget.percentile)) > budget.max_s * (1 + _LATENCY_SLACK)
    )
    accuracy = labelled_accuracy(estimate.candidate)
    short_pp = _over(budgets.min_accuracy_pct, accuracy.accuracy_pct if accuracy else None)
    drop_pp = _over(accuracy.drop_pp if accuracy else None, budgets.max_accuracy_drop_pp)
    if not late and short_pp is None and drop_pp is None:
        return None
    # On the log scale, so that twice the budget is as far for 5 ms as for 5 s.
    shares = [math.log(miss.got_s) - math.log(miss.budget.max_s) for miss in late]
    shares += [points * _LATENCY_SHARE_PER_POINT for points in (short_pp, drop_pp) if points is not None]
    return NearMiss(
        estimate,
        late,
        short_pp,
        drop_pp,
        distance=sum(shares),
        probability=probability(estimate.candidate, budgets, latency),
        miss_confidence=_miss_confidence(estimate.candidate, latency, budgets),
    )


def _miss_confidence(candidate: Candidate, latency: Sequence[PercentileInterval], budgets: Budgets) -> float:
    """Return the largest level at which some budget is shown to be broken."""
    accuracy, drop = labelled_accuracy(candidate), drop_of(candidate)
    broken = [
        0.0 if interval.estimate is None else 1 - interval.estimate.confidence_below(math.log(budget.max_s))
        for interval, budget in zip(latency, budgets.latency, strict=True)
    ]
    if budgets.min_accuracy_pct is not None:
        broken.append(0.0 if accuracy is None else below_floor(accuracy, budgets.min_accuracy_pct))
    if budgets.max_accuracy_drop_pp is not None:
        broken.append(0.0 if drop is None else drop.confidence_above(budgets.max_accuracy_drop_pp))
    # Any of them would do, and the surest was found by looking.
    return max(broken, default=0.0) ** len(broken)


def _over(value: float | None, limit: float | None) -> float | None:
    """Return by how much a value exceeds a limit; None when it does not, or when either is unknown."""
    if value is None or limit is None or value - limit <= _ACCURACY_SLACK_PP:
        return None
    return value - limit


def _missing(estimate: Estimate, budgets: Budgets) -> UndecidedCandidate | None:
    """Return what has to be measured before any bound can be given."""
    accuracy, floor = labelled_accuracy(estimate.candidate), budgets.min_accuracy_pct
    without_drop = budgets.max_accuracy_drop_pp is not None and drop_of(estimate.candidate) is None
    if accuracy is None and (floor is not None or without_drop):
        return UndecidedCandidate(estimate, Gap.ACCURACY_MISSING)
    if accuracy is not None and without_drop:
        return UndecidedCandidate(estimate, Gap.DROP_MISSING if accuracy.drop_pp is None else Gap.ITEMS_MISSING)
    if accuracy is not None and floor is not None and accuracy.hits is None and accuracy.short is None:
        return UndecidedCandidate(estimate, Gap.ITEMS_MISSING)
    if accuracy is not None and (refused := _refusal(accuracy, budgets)) is not None:
        return UndecidedCandidate(estimate, Gap.TOO_FEW_IMAGES, refusal=refused)
    # The highest percentile first: it needs the most inputs, and with those the others have enough.
    for budget in sorted(budgets.latency, key=lambda budget: -budget.percentile):
        refusal = interval(estimate.candidate, budget.percentile).refusal
        if refusal is not None:
            kind = Gap.ONE_ROUND if refusal.kind is RefusalKind.ONE_ROUND else Gap.TOO_THIN
            return UndecidedCandidate(estimate, kind, budget.percentile, refusal.inputs_needed)
    return None


def _refusal(accuracy: AccuracyMeasurement, budgets: Budgets) -> IntervalRefusal | None:
    """Return why the images give no bound for an accuracy budget of the question."""
    drops = (
        accuracy.short if budgets.min_accuracy_pct is not None and accuracy.hits is None else None,
        accuracy.drop if budgets.max_accuracy_drop_pp is not None else None,
    )
    return next((drop.refusal for drop in drops if drop is not None and drop.refusal is not None), None)


def steadied(candidates: Sequence[Candidate], percentile: float) -> Mapping[Candidate, PercentileInterval]:
    """Return each candidate's percentile as a promise takes it: its variance moderated by those of all others."""
    if not candidates:
        return {}
    # Weak references, so that the key does not keep candidates of an older snapshot alive.
    key = percentile, tuple(map(ref, candidates))
    intervals = _steadied_intervals.get(candidates[0], key, lambda: _steadied(candidates, percentile))
    return dict(zip(candidates, intervals, strict=True))


def sharing(candidates: Sequence[Candidate]) -> Mapping[Candidate, int]:
    """Count the candidates that share the accuracy of each: the same items with the same outcomes."""
    if not candidates:
        return {}
    shares = _accuracy_shares.get(candidates[0], tuple(map(ref, candidates)), lambda: _sharing(candidates))
    return dict(zip(candidates, shares, strict=True))


def _sharing(candidates: Sequence[Candidate]) -> tuple[int, ...]:
    evidence = [_accuracy_evidence(candidate) for candidate in candidates]
    count = Counter(evidence)
    return tuple(count[item] for item in evidence)


def _accuracy_evidence(candidate: Candidate) -> int:
    accuracy = candidate.accuracy
    arrays = (accuracy.drop, accuracy.short, accuracy.hits) if accuracy is not None else ()
    # By identity: loading gives equal accuracies one object. A candidate without evidence shares with none.
    return id(next((array for array in arrays if array is not None), candidate))


def _steadied(candidates: Sequence[Candidate], percentile: float) -> tuple[PercentileInterval, ...]:
    intervals = [interval(candidate, percentile) for candidate in candidates]
    # Candidates without an interval neither give nor take variance, but keep their place.
    estimates = iter(moderated([own.estimate for own in intervals if own.estimate is not None]))
    return tuple(replace(own, estimate=None if own.estimate is None else next(estimates)) for own in intervals)


def _checks(
    candidate: Candidate, budgets: Budgets, latency: Sequence[PercentileInterval], shared: int, tests: int
) -> _Checks:
    """Check every budget; call it when nothing is missing."""
    accuracy = candidate.accuracy
    checks = []
    floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if floor is not None and accuracy is not None:
        checks.append(floor_within(accuracy, floor))
    if most is not None and (drop := drop_of(candidate)) is not None:
        checks.append(drop_within(drop, most))
    return _Checks(
        tuple(
            latency_within(latency_interval, budget.max_s, tests=tests)
            for latency_interval, budget in zip(latency, budgets.latency, strict=True)
        ),
        tuple(checks),
        shared,
        tests,
    )


def below_floor(accuracy: AccuracyMeasurement, floor: float) -> float:
    """Return the largest level at which an accuracy is shown to be below a floor."""
    if accuracy.hits is not None:
        return confidence_below(floor / 100, int(accuracy.hits.sum()), accuracy.hits.size)
    return 0.0 if accuracy.short is None else accuracy.short.confidence_above(100 - floor)


def floor_within(accuracy: AccuracyMeasurement, floor: float) -> BudgetCheck:
    """Check a floor by what is known of the accuracy: hits, or the drop against a flawless reference."""
    if accuracy.hits is not None:
        return hits_at_least(accuracy.hits, floor)
    assert accuracy.short is not None
    return floor_from_drop(accuracy.short, floor)


def _unproven(estimate: Estimate, budgets: Budgets) -> UndecidedCandidate | None:
    """Return the first budget whose bound is beyond it, with its percentile when it is one of latency."""
    checks = estimate.feasibility.checks if estimate.feasibility else ()
    percentiles: list[float | None] = [budget.percentile for budget in budgets.latency]
    units: list[Unit] = ["s"] * len(budgets.latency)
    units += ["%"] if budgets.min_accuracy_pct is not None else []
    units += ["pp"] if budgets.max_accuracy_drop_pp is not None else []
    percentiles += [None] * (len(units) - len(percentiles))
    for check, percentile, unit in zip(checks, percentiles, units, strict=True):
        if not check.holds:
            return UndecidedCandidate(estimate, Gap.UNPROVEN, percentile, check=check, unit=unit)
    return None


def _at(estimate: Estimate, percentile: float) -> float:
    return interval(estimate.candidate, percentile).estimate_s


BudgetField = Literal["max_latency_s", "min_accuracy_pct", "max_accuracy_drop_pp"]


@dataclass(frozen=True)
class Shortfall:
    """A budget beside what is known of a candidate.

    Attributes
    ----------
    budget : str
        The field of the question.
    percentile : float or None
        Of a latency budget.
    limit : float
        Seconds, percent or percentage points.
    estimate, bound : float or None
        In the same unit; None where nothing was measured, or no bound can be given. The bound is one-sided, at the
        level that a candidate needs which is the only one to hold.
    items : int or None
        Validation items that a budget of accuracy rests on.
    best_bound : float or None
        What so many items could show at best, at the same level: the bound if none were lost.
    items_needed : int or None
        Fewest items that could show the limit to hold; None where there are as many.
    """

    budget: BudgetField
    percentile: float | None
    limit: float
    estimate: float | None
    bound: float | None
    items: int | None = None
    best_bound: float | None = None
    items_needed: int | None = None

    @property
    def over(self) -> float | None:
        """How far the estimate is beyond the limit; below 0 it is within."""
        return self._beyond(self.estimate)

    @property
    def bound_over(self) -> float | None:
        """How far the bound is beyond the limit; below 0 it is within."""
        return self._beyond(self.bound)

    @property
    def out_of_reach(self) -> bool:
        """Whether so few items cannot show the limit to hold, whatever they say."""
        best_over = self._beyond(self.best_bound)
        return best_over is not None and best_over > 1e-9

    def _beyond(self, value: float | None) -> float | None:
        if value is None:
            return None
        return self.limit - value if self.budget == "min_accuracy_pct" else value - self.limit


def shortfalls(
    candidate: Candidate,
    budgets: Budgets,
    *,
    among: Sequence[Candidate],
    judged: Feasibility | None = None,
    proven: int = 0,
) -> tuple[Shortfall, ...]:
    """Compare every budget of a question with the evidence of one candidate.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets
    among : sequence of Candidate
        All of the question, this one included.
    judged : Feasibility, optional
        Of the candidate, where `judge_all` came to judge it: its bounds are taken.
    proven : int
        How many others are proven already.

    Returns
    -------
    tuple of Shortfall
        Latencies in the order of the budgets, then accuracy: as `judge_all` orders its checks.

    Notes
    -----
    Bounds that were not judged are those of the step of `judge_all` that follows the proven ones: what a candidate
    needs to be the next.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking.model import LatencyBudget
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> [shortfall] = shortfalls(slow, Budgets(latency=(LatencyBudget(90, 0.15),)), among=[slow])
    >>> round(shortfall.over, 3), round(shortfall.bound_over, 3)
    (0.05, 0.05)
    """
    own, drop = labelled_accuracy(candidate), drop_of(candidate)
    drop_pp = own.drop_pp if own is not None and own.drop_pp is not None else drop.drop_pp if drop is not None else None
    limits: list[tuple[BudgetField, float | None, float, float | None]] = [
        ("max_latency_s", budget.percentile, budget.max_s, interval(candidate, budget.percentile).estimate_s)
        for budget in budgets.latency
    ]
    if budgets.min_accuracy_pct is not None:
        limits.append(("min_accuracy_pct", None, budgets.min_accuracy_pct, own.accuracy_pct if own else None))
    if budgets.max_accuracy_drop_pp is not None:
        limits.append(("max_accuracy_drop_pp", None, budgets.max_accuracy_drop_pp, drop_pp))
    checks = judged.checks if judged else _shortfall_checks(candidate, own, budgets, among, proven)
    return tuple(_against(*limit, check) for limit, check in zip(limits, checks, strict=True))


def _against(
    budget: BudgetField, percentile: float | None, limit: float, estimate: float | None, check: BudgetCheck | None
) -> Shortfall:
    if check is None:
        return Shortfall(budget, percentile, limit, estimate, None)
    best = check.best_bound
    return Shortfall(budget, percentile, limit, estimate, check.bound, check.items, best, check.items_needed)


def _shortfall_checks(
    candidate: Candidate,
    accuracy: AccuracyMeasurement | None,
    budgets: Budgets,
    among: Sequence[Candidate],
    proven: int,
) -> list[BudgetCheck | None]:
    """Check in the order of the budgets, at the level of the next candidate to hold; None without evidence."""
    level = sidak(budgets.confidence, comparisons=max(1, len(among) - proven))
    checks: list[BudgetCheck | None] = [
        latency_within(steadied(among, budget.percentile)[candidate], budget.max_s, tests=len(among)).at(level)
        for budget in budgets.latency
    ]
    level = max(level ** sharing(among)[candidate], budgets.confidence)
    floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if floor is not None:
        has_items = accuracy is not None and (accuracy.hits is not None or accuracy.short is not None)
        checks.append(floor_within(accuracy, floor).at(level) if accuracy is not None and has_items else None)
    if most is not None:
        drop = drop_of(candidate)
        checks.append(None if drop is None else drop_within(drop, most).at(level))
    return checks
