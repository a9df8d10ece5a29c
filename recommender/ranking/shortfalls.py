"""Every budget of a question beside what is known of one candidate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from catalog.statistics.feasibility import BudgetCheck, Feasibility, upper_bound
from catalog.statistics.looks import with_share
from catalog.statistics.outcomes import sidak
from recommender.ranking.candidates import Candidate, CandidateCache, interval
from recommender.ranking.feasibility import accuracy_checks, family, sharing, steadied_rows
from recommender.ranking.model import Budgets
from recommender.ranking.prospects import drop_of, labelled_accuracy

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
    all_count: bool = False,
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
    all_count : bool
        Whether a promise pays for all candidates, instead of those of `family` and the candidate itself.

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
    checks = judged.checks if judged else _checks(candidate, budgets, among, proven, all_count)
    return tuple(_against(candidate, *limit, check) for limit, check in zip(limits, checks, strict=True))


# Of accuracies, whose levels and limits are few; how many items a limit takes is searched for.
_of_accuracy: CandidateCache[Shortfall] = CandidateCache()


def _against(
    candidate: Candidate,
    budget: BudgetField,
    percentile: float | None,
    limit: float,
    estimate: float | None,
    check: BudgetCheck | float | None,
) -> Shortfall:
    """Put the check of a budget, or its bound alone, beside the limit and the estimate."""
    if not isinstance(check, BudgetCheck):
        return Shortfall(budget, percentile, limit, estimate, check)
    if check.items is None:
        return Shortfall(budget, percentile, limit, estimate, check.bound, None, check.best_bound, check.items_needed)

    def of_items() -> Shortfall:
        best = check.best_bound
        return Shortfall(budget, percentile, limit, estimate, check.bound, check.items, best, check.items_needed)

    return _of_accuracy.get(candidate, (budget, limit, check.level), of_items)


def _checks(
    candidate: Candidate, budgets: Budgets, among: Sequence[Candidate], proven: int, all_count: bool
) -> list[BudgetCheck | float | None]:
    """Check in the order of the budgets, at the level of the next candidate to hold; None without evidence."""
    counted, row = family(among, budgets), among.index(candidate)
    members = len(among) if all_count else len(counted.rows) + (row not in counted.rows)
    tests = max(1, members - proven)
    level = sidak(budgets.confidence, comparisons=tests)
    of_latency = with_share(level, counted.latency_share * candidate.error_share)
    # Of latencies the bound alone: the confidence of a budget that its own estimate misses is not shown.
    checks: list[BudgetCheck | float | None] = [
        upper_bound(steadied_rows(among, budget.percentile)[row], of_latency, tests=tests) for budget in budgets.latency
    ]
    level = max(level ** sharing(among)[row], budgets.confidence)
    checks += [None if check is None else check.at(level) for check in accuracy_checks(candidate, budgets)]
    return checks
