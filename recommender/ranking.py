"""Evidence and budgets in, a ranked answer out: pure functions over arrays, numbers only.

The words for these numbers are in `wording.py`; where the evidence comes from is `snapshot.py`'s business.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Objective = Literal["latency", "accuracy"]

_CONFIDENCE = 0.95
# What makes one near miss nearer than another: a percentage point of accuracy weighs as much as 10 % of latency.
_LATENCY_SHARE_PER_POINT = 0.1
# Accuracies are counts over some thousand items: a drop of "exactly 1.0" must not miss a budget of 1.0 by 1e-14.
_ACCURACY_SLACK_PP = 1e-9
# Nor must the mean of three rounds of 0.1 s, which is 0.10000000000000002 s, miss a budget of 0.1 s.
_LATENCY_SLACK = 1e-12


@dataclass(frozen=True)
class Accuracy:
    """How well a strategy predicts; `drop_pp` is against identity on the same validation items, None when unknown."""

    metric: str
    accuracy_pct: float
    drop_pp: float | None
    items: int


@dataclass(frozen=True, eq=False)
class Candidate:
    """One measured strategy.

    `latency_s` has one array per round, in order; `inputs` counts the distinct inputs of the round with the fewest,
    because repetitions of one input are not further evidence about other inputs.
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


@dataclass(frozen=True, eq=False)
class Estimate:
    """A candidate with the numbers that the question asked for."""

    candidate: Candidate
    median_s: float
    percentile: float
    percentile_s: float
    percentile_s_by_round: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Alternative:
    """A feasible strategy that was not chosen, against the chosen one.

    `latency_ratio` above 1 means slower than the recommendation; `accuracy_difference_pp` above 0 more accurate.
    """

    estimate: Estimate
    latency_ratio: float
    accuracy_difference_pp: float | None


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
    ACCURACY_MISSING = "accuracy_missing"
    DROP_MISSING = "drop_missing"


@dataclass(frozen=True, eq=False)
class Undecided:
    """Nothing measured speaks against this candidate, but not enough was measured to promise the budgets."""

    estimate: Estimate
    gap: Gap
    percentile: float | None = None
    inputs_needed: int | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The best feasible strategy first, then everything else that was considered, each in its place."""

    budgets: Budgets
    recommendation: Estimate | None
    alternatives: tuple[Alternative, ...]
    near_misses: tuple[NearMiss, ...]
    undecided: tuple[Undecided, ...]
    considered: tuple[Estimate, ...]


def inputs_needed(percentile: float, *, confidence_level: float = _CONFIDENCE) -> int:
    """Fewest inputs that can bound a percentile from above without assuming a distribution.

    Parameters
    ----------
    percentile : float
        Above 0 and below 100.
    confidence_level : float
        Above 0 and below 1.

    Returns
    -------
    int
        The smallest n with 1 - p**n >= `confidence_level`, p being `percentile` / 100.

    Notes
    -----
    The largest of n independent values lies above the percentile with probability 1 - p**n; with fewer values not
    even the largest is an upper bound at that confidence.

    Examples
    --------
    >>> [inputs_needed(p) for p in (50, 90, 95, 99)]
    [5, 29, 59, 299]
    """
    needed = math.log(1 - confidence_level) / math.log(percentile / 100)
    return max(1, math.ceil(needed - 1e-9))


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


def estimate(candidate: Candidate, percentile: float) -> Estimate:
    """A candidate's median and asked percentile: taken within each round, then averaged over the rounds.

    Parameters
    ----------
    candidate : Candidate
        With at least one round of at least one sample.
    percentile : float
        Between 0 and 100.

    Returns
    -------
    Estimate
    """
    by_round = percentile_by_round(candidate, percentile)
    return Estimate(
        candidate=candidate,
        median_s=float(np.mean(percentile_by_round(candidate, 50.0))),
        percentile=percentile,
        percentile_s=float(np.mean(by_round)),
        percentile_s_by_round=by_round,
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
    A budget holds when the point estimate is within it. A budget that is missed on the measured inputs is a near
    miss however few they are; one that is met on too few inputs (see `inputs_needed`) is undecided.

    Examples
    --------
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),), inputs=30)
    >>> fast = Candidate("quantized", "mobile", ("mobile",), (np.full(30, 0.1),), inputs=30)
    >>> answer = recommend([slow, fast], Budgets(latency=(LatencyBudget(90, 0.15),)))
    >>> answer.recommendation.candidate.operator, round(answer.near_misses[0].latency[0].over_s, 3)
    ('quantized', 0.05)
    """
    considered = [estimate(each, budgets.percentile) for each in candidates if each.samples]
    feasible: list[Estimate] = []
    missed: list[NearMiss] = []
    undecided: list[Undecided] = []
    for each in considered:
        miss, gap = _near_miss(each, budgets), _gap(each, budgets)
        if miss is not None:
            missed.append(miss)
        elif gap is not None:
            undecided.append(gap)
        else:
            feasible.append(each)
    feasible.sort(key=lambda each: _preference(each, budgets.objective))
    best = feasible[0] if feasible else None
    return Answer(
        budgets=budgets,
        recommendation=best,
        alternatives=tuple(_alternative(each, best) for each in feasible[1:]) if best else (),
        near_misses=tuple(sorted(missed, key=lambda each: each.distance)),
        undecided=tuple(sorted(undecided, key=lambda each: _preference(each.estimate, budgets.objective))),
        considered=tuple(considered),
    )


def _preference(each: Estimate, objective: Objective) -> tuple[float, float, int, float, str, str]:
    """Smaller is better; the names last, so that an exact tie is broken the same way every time."""
    candidate = each.candidate
    inaccuracy = -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf
    first, second = (each.percentile_s, inaccuracy) if objective == "latency" else (inaccuracy, each.percentile_s)
    size = math.inf if candidate.size_bytes is None else candidate.size_bytes
    return first, second, len(candidate.tiers), size, candidate.operator, candidate.placement


def _alternative(each: Estimate, best: Estimate) -> Alternative:
    mine, other = best.candidate.accuracy, each.candidate.accuracy
    return Alternative(
        estimate=each,
        latency_ratio=each.percentile_s / best.percentile_s,
        accuracy_difference_pp=other.accuracy_pct - mine.accuracy_pct if mine and other else None,
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


def _gap(each: Estimate, budgets: Budgets) -> Undecided | None:
    accuracy = each.candidate.accuracy
    if accuracy is None and (budgets.min_accuracy_pct is not None or budgets.max_accuracy_drop_pp is not None):
        return Undecided(each, Gap.ACCURACY_MISSING)
    if accuracy is not None and accuracy.drop_pp is None and budgets.max_accuracy_drop_pp is not None:
        return Undecided(each, Gap.DROP_MISSING)
    if budgets.latency:
        percentile = max(budget.percentile for budget in budgets.latency)
        if each.candidate.inputs < inputs_needed(percentile):
            return Undecided(each, Gap.TOO_THIN, percentile, inputs_needed(percentile))
    return None


def _at(each: Estimate, percentile: float) -> float:
    if percentile == each.percentile:
        return each.percentile_s
    return float(np.mean(percentile_by_round(each.candidate, percentile)))
