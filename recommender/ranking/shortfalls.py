"""How far each budget is from being promised: by its estimate, and by its bound at the joint confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from catalog.statistics import hits_at_least
from catalog.statistics.verdicts import sidak
from recommender.ranking.answers import Budgets, LatencyBudget
from recommender.ranking.candidates import Accuracy, Candidate, interval, remembered
from recommender.ranking.judging import steadied

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


def shortfalls(candidate: Candidate, budgets: Budgets, *, among: Sequence[Candidate]) -> tuple[Shortfall, ...]:
    """Every budget of a question beside what is known of one candidate.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets
    among : sequence of Candidate
        All of the question, this one included.

    Returns
    -------
    tuple of Shortfall
        Latencies in the order of the budgets, then accuracy: as `judge_all` orders its checks.

    Notes
    -----
    The bounds are those of the first step of `judge_all`, what a candidate needs when no other holds.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking.answers import LatencyBudget
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> [found] = shortfalls(slow, Budgets(latency=(LatencyBudget(90, 0.15),)), among=[slow])
    >>> round(found.over, 3), round(found.bound_over, 3)
    (0.05, 0.05)
    """
    level = sidak(budgets.confidence, comparisons=len(among))
    found = [_latency(candidate, each, among, level) for each in budgets.latency]
    accuracy = candidate.accuracy if candidate.accuracy and candidate.accuracy.from_labels else None
    if budgets.min_accuracy_pct is not None or budgets.max_accuracy_drop_pp is not None:
        sharing = sum(_evidence(each) is _evidence(candidate) for each in among)
        level = max(level**sharing, budgets.confidence)
    if budgets.min_accuracy_pct is not None:
        floor = remembered(candidate, ("floor bound", level), lambda: _floor_bound(accuracy, level))
        estimate = accuracy.accuracy_pct if accuracy else None
        found.append(Shortfall("min_accuracy_pct", None, budgets.min_accuracy_pct, estimate, floor))
    if budgets.max_accuracy_drop_pp is not None:
        most = remembered(candidate, ("drop bound", level), lambda: _drop_bound(accuracy, level))
        drop_pp = accuracy.drop_pp if accuracy else None
        found.append(Shortfall("max_accuracy_drop_pp", None, budgets.max_accuracy_drop_pp, drop_pp, most))
    return tuple(found)


def _latency(candidate: Candidate, budget: LatencyBudget, among: Sequence[Candidate], level: float) -> Shortfall:
    promised = steadied(among, budget.percentile)[among.index(candidate)]
    own = interval(candidate, budget.percentile).estimate_s
    return Shortfall("max_latency_s", budget.percentile, budget.max_s, own, promised.upper_s(level))


def _evidence(candidate: Candidate) -> object:
    """The same object for candidates whose accuracy rests on the same items with the same outcomes."""
    accuracy = candidate.accuracy
    if accuracy is None:
        return candidate
    return next((it for it in (accuracy.drop, accuracy.short, accuracy.hits) if it is not None), candidate)


def _floor_bound(accuracy: Accuracy | None, level: float) -> float | None:
    if accuracy is None:
        return None
    if accuracy.hits is not None:
        return hits_at_least(accuracy.hits, 0.0, confidence_level=level).bound
    return None if accuracy.short is None else 100 - accuracy.short.upper_pp(level)


def _drop_bound(accuracy: Accuracy | None, level: float) -> float | None:
    return None if accuracy is None or accuracy.drop is None else accuracy.drop.upper_pp(level)
