"""How far each budget is from being promised: by its estimate, and by its bound at the joint confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from catalog.statistics import Feasibility, hits_at_least
from catalog.statistics.verdicts import sidak
from recommender.ranking.answers import Budgets
from recommender.ranking.candidates import Accuracy, Candidate, interval, remembered
from recommender.ranking.judging import sharing, steadied

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


def shortfalls(
    candidate: Candidate, budgets: Budgets, *, among: Sequence[Candidate], judged: Feasibility | None = None
) -> tuple[Shortfall, ...]:
    """Every budget of a question beside what is known of one candidate.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets
    among : sequence of Candidate
        All of the question, this one included.
    judged : Feasibility, optional
        Of the candidate, where `judge_all` came to judge it: its bounds are taken.

    Returns
    -------
    tuple of Shortfall
        Latencies in the order of the budgets, then accuracy: as `judge_all` orders its checks.

    Notes
    -----
    Bounds that were not judged are those of the first step of `judge_all`, what a candidate needs when no other holds.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking.answers import LatencyBudget
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> [found] = shortfalls(slow, Budgets(latency=(LatencyBudget(90, 0.15),)), among=[slow])
    >>> round(found.over, 3), round(found.bound_over, 3)
    (0.05, 0.05)
    """
    own = candidate.accuracy if candidate.accuracy and candidate.accuracy.from_labels else None
    limits: list[tuple[BudgetField, float | None, float, float | None]] = [
        ("max_latency_s", each.percentile, each.max_s, interval(candidate, each.percentile).estimate_s)
        for each in budgets.latency
    ]
    if budgets.min_accuracy_pct is not None:
        limits.append(("min_accuracy_pct", None, budgets.min_accuracy_pct, own.accuracy_pct if own else None))
    if budgets.max_accuracy_drop_pp is not None:
        limits.append(("max_accuracy_drop_pp", None, budgets.max_accuracy_drop_pp, own.drop_pp if own else None))
    bounds = [each.bound for each in judged.checks] if judged else _bounds(candidate, own, budgets, among)
    return tuple(Shortfall(*limit, bound) for limit, bound in zip(limits, bounds, strict=True))


def _bounds(
    candidate: Candidate, accuracy: Accuracy | None, budgets: Budgets, among: Sequence[Candidate]
) -> list[float | None]:
    """In the order of the budgets, at the level of the only one to hold."""
    level = sidak(budgets.confidence, comparisons=len(among))
    found = [steadied(among, each.percentile)[candidate].upper_s(level) for each in budgets.latency]
    level = max(level ** sharing(among)[candidate], budgets.confidence)
    if budgets.min_accuracy_pct is not None:
        found.append(remembered(candidate, ("floor bound", level), lambda: _floor_bound(accuracy, level)))
    if budgets.max_accuracy_drop_pp is not None:
        found.append(remembered(candidate, ("drop bound", level), lambda: _drop_bound(accuracy, level)))
    return found


def _floor_bound(accuracy: Accuracy | None, level: float) -> float | None:
    if accuracy is None:
        return None
    if accuracy.hits is not None:
        return hits_at_least(accuracy.hits, 0.0, confidence_level=level).bound
    return None if accuracy.short is None else 100 - accuracy.short.upper_pp(level)


def _drop_bound(accuracy: Accuracy | None, level: float) -> float | None:
    return None if accuracy is None or accuracy.drop is None else accuracy.drop.upper_pp(level)
