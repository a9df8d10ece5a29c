"""Every budget of a question beside what is known of one candidate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from catalog.statistics.feasibility import BudgetCheck, Feasibility, upper_bound
from catalog.statistics.looks import with_share
from catalog.statistics.outcomes import sidak
from recommender.ranking.accuracy_budgets import accuracy_checks
from recommender.ranking.candidates import Candidate, CandidateCache
from recommender.ranking.feasibility import Judgement, judge
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
    candidate: Candidate, budgets: Budgets, *, among: Sequence[Candidate], judged: Feasibility | None = None
) -> tuple[Shortfall, ...]:
    """Compare every budget of a question with the evidence of one candidate.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets
    among : sequence of Candidate
        All of the question, this one included.
    judged : Feasibility, optional
        Of the candidate, where `judge` came to judge it: its bounds are taken.

    Returns
    -------
    tuple of Shortfall
        Latencies in the order of the budgets, then accuracy: as `judge` orders its checks.

    Notes
    -----
    Bounds that were not judged are those of the first step of `Judgement`, at which a promise pays for the candidates
    of its `Family` and for the candidate itself.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking.model import LatencyBudget
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> [shortfall] = shortfalls(slow, Budgets(latency=(LatencyBudget(90, 0.15),)), among=[slow])
    >>> round(shortfall.over, 3), round(shortfall.bound_over, 3)
    (0.05, 0.05)
    """
    return AllShortfalls(among, budgets).of(candidate, judged)


class AllShortfalls:
    """What every candidate of a question lacks, each as `shortfalls` says it."""

    def __init__(self, among: Sequence[Candidate], budgets: Budgets) -> None:
        self._budgets = budgets
        self._rows = {candidate: row for row, candidate in enumerate(among)}
        judgement = judge(among, budgets)
        assert judgement is not None, "there is at least the candidate that is asked about"
        self._judged, self._counted = judgement, frozenset(judgement.family.rows)
        self._limits = _limits(budgets)
        self._estimates = budget_estimates(judgement)
        # By whether a candidate counts among those that a promise pays for.
        self._steps = {counted: _next_step(judgement, counted=counted) for counted in (True, False)}
        self._bounds = {counted: _latency_bounds(judgement, step) for counted, step in self._steps.items()}

    def of(self, candidate: Candidate, judged: Feasibility | None = None) -> tuple[Shortfall, ...]:
        """Compare every budget with one candidate; `judged` gives its bounds where it was judged."""
        row = self._rows[candidate]
        checks = judged.checks if judged else self._checks(candidate, row)
        return tuple(
            _against(candidate, *limit, estimates[row], check)
            for limit, estimates, check in zip(self._limits, self._estimates, checks, strict=True)
        )

    def _checks(self, candidate: Candidate, row: int) -> Sequence[BudgetCheck | float | None]:
        """Check in the order of the budgets, at the level of the next candidate to hold; None without evidence."""
        counted = row in self._counted
        # Of latencies the bound alone: the confidence of a budget that its own estimate misses is not shown.
        bounds = [column[row] for column in self._bounds[counted]]
        level = _accuracy_level(self._judged, row, self._steps[counted])
        checks = accuracy_checks(candidate, self._budgets)
        return [*bounds, *(None if check is None else check.at(level) for check in checks)]


def _limits(budgets: Budgets) -> list[tuple[BudgetField, float | None, float]]:
    limits: list[tuple[BudgetField, float | None, float]] = [
        ("max_latency_s", budget.percentile, budget.max_s) for budget in budgets.latency
    ]
    if budgets.min_accuracy_pct is not None:
        limits.append(("min_accuracy_pct", None, budgets.min_accuracy_pct))
    if budgets.max_accuracy_drop_pp is not None:
        limits.append(("max_accuracy_drop_pp", None, budgets.max_accuracy_drop_pp))
    return limits


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


@dataclass(frozen=True)
class _NextStep:
    """What the next candidate to hold is judged at: its level before any share of the error, and how many tests."""

    tests: int
    level: float


def _next_step(judged: Judgement, *, counted: bool, proven: int = 0, all_count: bool = False) -> _NextStep:
    members = judged.table.count if all_count else len(judged.family.rows) + (not counted)
    tests = max(1, members - proven)
    return _NextStep(tests, sidak(judged.budgets.confidence, comparisons=tests))


def _latency_bounds(judged: Judgement, step: _NextStep) -> list[Sequence[float | None]]:
    """Return the bounds of all candidates for each budget of latency."""
    table, share = judged.table, judged.family.latency_share
    levels = [with_share(step.level, share * own) for own in table.error_share]

    def bounds(percentile: float) -> Sequence[float | None]:
        bounded = table.latency(percentile).bounded
        return [upper_bound(own, level, tests=step.tests) for own, level in zip(bounded, levels, strict=True)]

    return [
        table.column(("bounds", budget.percentile, step, share), partial(bounds, budget.percentile))
        for budget in judged.budgets.latency
    ]


def _accuracy_level(judged: Judgement, row: int, step: _NextStep) -> float:
    return max(step.level ** judged.table.sharing[row], judged.budgets.confidence)


def _accuracy_bounds(judged: Judgement, step: _NextStep) -> list[Sequence[float | None]]:
    """Return the bounds of all candidates for each budget of accuracy."""
    budgets = judged.budgets
    limits = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if limits == (None, None):
        return []

    def bounds() -> list[Sequence[float | None]]:
        by_row = [
            [
                None if check is None else check.at(_accuracy_level(judged, row, step)).bound
                for check in accuracy_checks(candidate, budgets)
            ]
            for row, candidate in enumerate(judged.table.candidates)
        ]
        return list(zip(*by_row, strict=True))

    return judged.table.kept(("accuracy bounds", limits, budgets.confidence, step), bounds)


def next_bounds(judged: Judgement, *, proven: int, all_count: bool) -> list[Sequence[float | None]]:
    """Return for each budget of a question the bounds of all candidates, to be the next after those that are proven.

    A promise then pays for `all_count`, or for those of its `Family` and the candidate itself, less the proven ones.
    """
    counted, others = (_next_step(judged, counted=own, proven=proven, all_count=all_count) for own in (True, False))
    rows = frozenset(judged.family.rows)
    columns = [[*_latency_bounds(judged, step), *_accuracy_bounds(judged, step)] for step in (counted, others)]
    return [
        [first if row in rows else second for row, (first, second) in enumerate(zip(*pair, strict=True))]
        for pair in zip(*columns, strict=True)
    ]


def budget_estimates(judged: Judgement) -> list[Sequence[float | None]]:
    """Return for each budget of a question the estimates of all candidates, in the order of the budgets."""
    budgets, table = judged.budgets, judged.table
    estimates: list[Sequence[float | None]] = [
        table.latency(budget.percentile).estimate_s for budget in budgets.latency
    ]
    if budgets.min_accuracy_pct is not None:
        estimates.append(table.column("accuracy", lambda: [_accuracy_pct(candidate) for candidate in table.candidates]))
    if budgets.max_accuracy_drop_pp is not None:
        estimates.append(table.column("drop", lambda: [_drop_pp(candidate) for candidate in table.candidates]))
    return estimates


def _accuracy_pct(candidate: Candidate) -> float | None:
    accuracy = labelled_accuracy(candidate)
    return None if accuracy is None else accuracy.accuracy_pct


def _drop_pp(candidate: Candidate) -> float | None:
    accuracy, drop = labelled_accuracy(candidate), drop_of(candidate)
    if accuracy is not None and accuracy.drop_pp is not None:
        return accuracy.drop_pp
    return None if drop is None else drop.drop_pp
