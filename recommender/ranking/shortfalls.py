"""How far each budget is from being promised: by its estimate, and by its bound at the joint confidence."""

from dataclasses import dataclass
from typing import Literal

from catalog.statistics import drop_within, hits_at_least, latency_within
from recommender.ranking.answers import Budgets
from recommender.ranking.candidates import Candidate, interval, remembered

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
        level that makes the bounds of all candidates hold together.
    """

    budget: BudgetField
    percentile: float | None
    limit: float
    estimate: float | None
    bound: float | None

    @property
    def over(self) -> float | None:
        """How far the estimate is beyond the limit; below 0 it is within."""
        return self._beyond(self.estimate)

    @property
    def bound_over(self) -> float | None:
        """How far the bound is beyond the limit; below 0 it is within."""
        return self._beyond(self.bound)

    def _beyond(self, value: float | None) -> float | None:
        if value is None:
            return None
        return self.limit - value if self.budget == "min_accuracy_pct" else value - self.limit


def shortfalls(candidate: Candidate, budgets: Budgets, *, candidates: int) -> tuple[Shortfall, ...]:
    """Every budget of a question beside what is known of one candidate.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets
    candidates : int
        Of the question: the bounds of all of them hold together (Sidak).

    Returns
    -------
    tuple of Shortfall
        Latencies in the order of the budgets, then accuracy.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking.answers import LatencyBudget
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> [found] = shortfalls(slow, Budgets(latency=(LatencyBudget(90, 0.15),)), candidates=1)
    >>> round(found.over, 3), round(found.bound_over, 3)
    (0.05, 0.05)
    """
    level = budgets.confidence
    found = [
        Shortfall(
            "max_latency_s",
            each.percentile,
            each.max_s,
            interval(candidate, each.percentile).estimate_s,
            _latency_bound(candidate, each.percentile, level, candidates),
        )
        for each in budgets.latency
    ]
    accuracy = candidate.accuracy if candidate.accuracy and candidate.accuracy.from_labels else None
    if budgets.min_accuracy_pct is not None:
        estimate = accuracy.accuracy_pct if accuracy else None
        bound = _floor_bound(candidate, level, candidates)
        found.append(Shortfall("min_accuracy_pct", None, budgets.min_accuracy_pct, estimate, bound))
    if budgets.max_accuracy_drop_pp is not None:
        drop_pp = accuracy.drop_pp if accuracy else None
        bound = _drop_bound(candidate, level, candidates)
        found.append(Shortfall("max_accuracy_drop_pp", None, budgets.max_accuracy_drop_pp, drop_pp, bound))
    return tuple(found)


# A bound does not depend on the limit it is held against, so one of each kind is remembered per level.


def _latency_bound(candidate: Candidate, percentile: float, level: float, candidates: int) -> float | None:
    found = interval(candidate, percentile)
    if found.estimate is None:
        return None
    key = ("latency bound", percentile, level, candidates)
    return remembered(
        candidate, key, lambda: latency_within(found, 1.0, confidence_level=level, candidates=candidates).bound
    )


def _floor_bound(candidate: Candidate, level: float, candidates: int) -> float | None:
    accuracy = candidate.accuracy
    if accuracy is None or not accuracy.from_labels:
        return None
    hits, short = accuracy.hits, accuracy.short
    key = ("floor bound", level, candidates)
    if hits is not None:
        return remembered(
            candidate, key, lambda: hits_at_least(hits, 0.0, confidence_level=level, candidates=candidates).bound
        )
    if short is None:
        return None
    bound = drop_within(short, 100.0, confidence_level=level, candidates=candidates).bound
    return None if bound is None else 100 - bound


def _drop_bound(candidate: Candidate, level: float, candidates: int) -> float | None:
    accuracy = candidate.accuracy
    if accuracy is None or not accuracy.from_labels or accuracy.drop is None:
        return None
    drop = accuracy.drop
    key = ("drop bound", level, candidates)
    return remembered(
        candidate, key, lambda: drop_within(drop, 100.0, confidence_level=level, candidates=candidates).bound
    )
