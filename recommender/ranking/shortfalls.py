"""How far each budget is from being promised: by its estimate, and by its bound at the joint confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from catalog.statistics import BudgetCheck, Feasibility, drop_within, latency_within
from catalog.statistics.verdicts import sidak
from recommender.ranking.candidates import Accuracy, Candidate, interval
from recommender.ranking.feasibility import floor_within, sharing, steadied
from recommender.ranking.model import Budgets

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
    >>> from recommender.ranking.model import LatencyBudget
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
    checks = judged.checks if judged else _checks(candidate, own, budgets, among)
    return tuple(_against(*limit, check) for limit, check in zip(limits, checks, strict=True))


def _against(
    budget: BudgetField, percentile: float | None, limit: float, estimate: float | None, check: BudgetCheck | None
) -> Shortfall:
    if check is None:
        return Shortfall(budget, percentile, limit, estimate, None)
    best = check.best_bound
    return Shortfall(budget, percentile, limit, estimate, check.bound, check.items, best, check.items_needed)


def _checks(
    candidate: Candidate, accuracy: Accuracy | None, budgets: Budgets, among: Sequence[Candidate]
) -> list[BudgetCheck | None]:
    """In the order of the budgets, at the level of the only one to hold; None where nothing is known."""
    level = sidak(budgets.confidence, comparisons=len(among))
    found: list[BudgetCheck | None] = [
        latency_within(steadied(among, each.percentile)[candidate], each.max_s).at(level) for each in budgets.latency
    ]
    level = max(level ** sharing(among)[candidate], budgets.confidence)
    floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if floor is not None:
        known = accuracy is not None and (accuracy.hits is not None or accuracy.short is not None)
        found.append(floor_within(accuracy, floor).at(level) if accuracy is not None and known else None)
    if most is not None:
        drop = None if accuracy is None else accuracy.drop
        found.append(None if drop is None else drop_within(drop, most).at(level))
    return found
