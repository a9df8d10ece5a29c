"""When no proven strategy is recommended: which single budget or constraint to relax, and to what, so that one is.

Every proposal is tried: the same question with the relaxed value, decided by the same rules, recommends its strategy.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from functools import cached_property, lru_cache
from typing import Any, Protocol

from recommender.ranking.candidates import Candidate
from recommender.ranking.feasibility import BudgetField, budget_estimates, judge, next_bounds
from recommender.ranking.model import (
    Breach,
    Budgets,
    Change,
    Constraints,
    Prospect,
    Relaxation,
    Status,
    Value,
    breaches,
)

_FIGURES = 3
# 100 times 1.23 is not quite 123: what a last bit does must not cost a hundredth of a point.
_ROUNDING = 1e-8


# Limits are tried at the bounds and estimates of candidates, which are the same in every question.
@lru_cache(maxsize=4096)
def up(value: float) -> float:
    """Round a limit up to three figures.

    Parameters
    ----------
    value : float
        Above 0, finite.

    Returns
    -------
    float
        At or above `value`, at most 1 % above it.

    Examples
    --------
    >>> up(0.031234), up(66193817)
    (0.0313, 66200000.0)
    """
    # The exact value of the float: its shortest decimal text may lie below it.
    exact = Decimal(value)
    step = Decimal(1).scaleb(exact.adjusted() - _FIGURES + 1)
    rounded = float(exact.quantize(step, rounding=ROUND_CEILING))
    # The decimal may lie between two floats, and the nearer one below the value.
    return rounded if rounded >= value else math.nextafter(rounded, math.inf)


def next_up(value: float) -> float:
    """Return the next limit of three figures above a value.

    Examples
    --------
    >>> next_up(0.0313), next_up(9.99)
    (0.0314, 10.0)
    """
    return up(math.nextafter(value, math.inf))


def points_up(value: float) -> float:
    """Round percent or percentage points up to hundredths.

    Examples
    --------
    >>> points_up(1.2301), points_up(1.23)
    (1.24, 1.23)
    """
    return math.ceil(value * 100 - _ROUNDING) / 100


def points_down(value: float) -> float:
    """Round percent down to hundredths.

    Examples
    --------
    >>> points_down(88.2399), points_down(88.24)
    (88.23, 88.24)
    """
    return math.floor(value * 100 + _ROUNDING) / 100


# What makes a relaxation cheap: the relative increase of a limit. A percentage point of accuracy weighs as much as
# 10 % of latency (as it does among near misses); to give a limit up, or one name of a list, as much as doubling one.
COST_PER_POINT = 0.1
COST_OF_GIVING_UP = 1.0
# Where the answer to a relaxed question is another strategy than the one it was relaxed for, the next one is tried.
_ATTEMPTS = 4
# A wider budget makes more candidates count, and their bounds wider: so many steps follow one another.
_STEPS = 12


class Deciding(Protocol):
    """The question's rules, as `recommend` applies them."""

    def admitted(self, constraints: Constraints) -> Sequence[Candidate]:
        """Return the candidates that the constraints admit."""

    def decision(self, budgets: Budgets, constraints: Constraints) -> Prospect | None:
        """Return what would be recommended."""


def relaxations(
    candidates: Sequence[Candidate],
    budgets: Budgets,
    constraints: Constraints,
    deciding: Deciding,
    *,
    answered: bool = False,
) -> tuple[Relaxation, ...]:
    """Return the least change of each field that leads to a proven recommendation, the cheapest first.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of the question, those that a constraint excludes included.
    budgets : Budgets
    constraints : Constraints
    deciding : Deciding
    answered : bool
        Whether the question as it is has a recommendation: without one, a change that leads to any is proposed where
        none leads to a proven one.

    Returns
    -------
    tuple of Relaxation
        Empty where no change of one field helps.

    Notes
    -----
    A budget is relaxed to the least bound among the candidates that hold every other budget, else to the least
    estimate, rounded to the lenient side; the limit of a constraint to the least measured value that lets a better
    answer in. A budget is given up only where no value of it helps, because nothing bounds or estimates it, and never
    proposed where the strategy that the change leads to keeps it anyway. Cost: a few decisions per field.

    Bounds grow with the budget, because a wider one makes more candidates count. From one bound to the next, each
    with what counts at the one before, leads upward to the least limit that its own bound keeps, whatever was asked.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking import LatencyBudget, recommend
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> change = recommend([slow], Budgets(latency=(LatencyBudget(90, 0.15),))).relaxations[0].change
    >>> change.field, change.before, change.after, round(change.cost, 2)
    ('max_latency_s', 0.15, 0.201, 0.34)
    """
    ground = _Ground(deciding.admitted(constraints), budgets, constraints, deciding, answered)
    proposals = [relaxed for limit in _limits(budgets) if (relaxed := _budget_relaxed(limit, ground)) is not None]
    for changes in _loosenings(candidates, budgets, constraints):
        # Tried and not reasoned: a proposal that does not lead to its strategy would be worse than none.
        tried = ((change, deciding.decision(budgets, change.constraints)) for change in changes)
        proposals += _first((Relaxation(change, best) for change, best in tried if best is not None), answered)
    return tuple(sorted(proposals, key=lambda proposal: proposal.change.cost))


def _first(proposals: Iterable[Relaxation], answered: bool) -> Sequence[Relaxation]:
    """Return the first that is proven; without any, the first of all if the question has no recommendation."""
    others = []
    for proposal in proposals:
        if proposal.gives.status is Status.PROVEN:
            return [proposal]
        others.append(proposal)
    return [] if answered else others[:1]


@dataclass(frozen=True)
class _Limit:
    """One budget of the question."""

    field: BudgetField
    percentile: float | None
    value: float

    def to(self, value: float | None, budgets: Budgets) -> Budgets:
        """Return the budgets with this one changed, or without it."""
        if self.field == "min_accuracy_pct":
            return replace(budgets, min_accuracy_pct=value)
        if self.field == "max_accuracy_drop_pp":
            return replace(budgets, max_accuracy_drop_pp=value)
        changed = [
            budget if budget.percentile != self.percentile else None if value is None else replace(budget, max_s=value)
            for budget in budgets.latency
        ]
        return replace(budgets, latency=tuple(budget for budget in changed if budget is not None))

    def cost(self, value: float) -> float:
        """Return the cost of this value instead of the question's."""
        if self.field == "max_latency_s":
            return value / self.value - 1
        return COST_PER_POINT * abs(value - self.value)

    def lenient(self, bound: float) -> float:
        """Return the limit of few figures that a bound keeps within."""
        if self.field == "max_latency_s":
            return up(bound)
        return points_up(bound) if self.field == "max_accuracy_drop_pp" else points_down(bound)

    def beyond(self, value: float) -> float:
        """Return how far an estimate or a bound is beyond the limit."""
        return self.value - value if self.field == "min_accuracy_pct" else value - self.value

    def kept(self, values: Sequence[float | None]) -> list[bool]:
        """Return which estimates or bounds are within the limit, but for rounding; one that is unknown is not."""
        limit, slack = self.value, _ROUNDING * max(abs(self.value), 1e-6)
        if self.field == "min_accuracy_pct":
            return [value is not None and limit - value <= slack for value in values]
        return [value is not None and value - limit <= slack for value in values]


def _limits(budgets: Budgets) -> Iterator[_Limit]:
    for budget in budgets.latency:
        yield _Limit("max_latency_s", budget.percentile, budget.max_s)
    if budgets.min_accuracy_pct is not None:
        yield _Limit("min_accuracy_pct", None, budgets.min_accuracy_pct)
    if budgets.max_accuracy_drop_pp is not None:
        yield _Limit("max_accuracy_drop_pp", None, budgets.max_accuracy_drop_pp)


@dataclass(frozen=True, eq=False)
class _Standing:
    """What each candidate lacks of some budgets: an estimate and a bound for each limit, by row."""

    limits: Sequence[_Limit]
    estimates: Sequence[Sequence[float | None]]
    bounds: Sequence[Sequence[float | None]]

    def place(self, limit: _Limit) -> int:
        """Return the place of a budget among the limits, whatever its value."""
        same = (limit.field, limit.percentile)
        return next(place for place, own in enumerate(self.limits) if (own.field, own.percentile) == same)

    @cached_property
    def kept(self) -> Sequence[Sequence[bool]]:
        """For each limit and row, whether the evidence shows that the budget holds."""
        return [limit.kept(bounds) for limit, bounds in zip(self.limits, self.bounds, strict=True)]

    @cached_property
    def within(self) -> Sequence[Sequence[bool]]:
        """For each limit and row, whether the estimate keeps the budget."""
        return [limit.kept(values) for limit, values in zip(self.limits, self.estimates, strict=True)]


@dataclass(frozen=True)
class _Ground:
    """What every budget is relaxed from: the question, its candidates and the rules that decide it."""

    among: Sequence[Candidate]
    budgets: Budgets
    constraints: Constraints
    deciding: Deciding
    answered: bool

    def standing(self, budgets: Budgets, *, all_count: bool = False) -> _Standing:
        """Return what each candidate lacks of these budgets, to be the next after those that are proven."""
        judged = judge(self.among, budgets)
        limits = tuple(_limits(budgets))
        if judged is None:
            return _Standing(limits, [()] * len(limits), [()] * len(limits))
        proven = len(judged.proven)
        bounds = next_bounds(judged, proven=proven, all_count=all_count)
        return _Standing(limits, budget_estimates(judged), bounds)

    @cached_property
    def now(self) -> _Standing:
        """What each candidate lacks of the question."""
        return self.standing(self.budgets)


def _budget_relaxed(limit: _Limit, ground: _Ground) -> Relaxation | None:
    """Relax to the least bound that leads to a proven answer, else to the least estimate; else give the budget up."""

    def tried(value: float | None) -> Relaxation | None:
        changed = limit.to(value, ground.budgets)
        best = ground.deciding.decision(changed, ground.constraints)
        # What is kept anyway is not what stood in the way.
        if best is None or ground.now.kept[ground.now.place(limit)][ground.among.index(best.candidate)]:
            return None
        cost = COST_OF_GIVING_UP if value is None else limit.cost(value)
        change = Change(limit.field, None, limit.percentile, limit.value, value, cost, changed, ground.constraints)
        return Relaxation(change, best)

    bounds, estimates = _values(limit, ground.now)
    for value in _steps(limit, ground, bounds):
        relaxed = tried(value)
        if relaxed is not None and relaxed.gives.status is Status.PROVEN:
            return relaxed
    # Where a faster strategy that nothing bounds is chosen first, no bound of another leads to a proven answer.
    if not ground.answered:
        for value in estimates[:_ATTEMPTS]:
            if (relaxed := tried(value)) is not None:
                return relaxed
    # Without any budget everything is proven, which answers nothing.
    alone = ground.answered and len(list(_limits(ground.budgets))) == 1
    if bounds or (not ground.answered and estimates) or alone:
        return None
    relaxed = tried(None)
    return relaxed if relaxed is not None and (relaxed.gives.status is Status.PROVEN or not ground.answered) else None


def _steps(limit: _Limit, ground: _Ground, bounds: Sequence[float]) -> Iterator[float]:
    """Yield limits to try, the nearest first: each is the least bound with what counts at the one before."""
    at = bounds[0] if bounds else None
    for _ in range(_STEPS):
        if at is None:
            break
        yield at
        there = replace(limit, value=at)
        at = next(iter(_values(there, ground.standing(limit.to(at, ground.budgets)))[0]), None)
    # At last as if all counted.
    yield from _values(limit, ground.standing(ground.budgets, all_count=True))[0][:_ATTEMPTS]


def _values(limit: _Limit, standing: _Standing) -> tuple[list[float], list[float]]:
    """Return the limits, nearest first, at which candidates would be proven, and those at which they would be within.

    Only what holds all other budgets can be let in by this one.
    """
    place = standing.place(limit)
    others = [other for other in range(len(standing.limits)) if other != place]
    now, kept, within = standing.limits[place], standing.kept, standing.within
    bounds, estimates = set(), set()
    for row, (bound, estimate) in enumerate(zip(standing.bounds[place], standing.estimates[place], strict=True)):
        if bound is not None and not kept[place][row] and all(kept[other][row] for other in others):
            bounds.add(limit.lenient(bound))
        missed = estimate is not None and now.beyond(estimate) > 0
        if estimate is not None and missed and all(within[other][row] for other in others):
            estimates.add(limit.lenient(estimate))
    nearest_last = limit.field == "min_accuracy_pct"
    return sorted(bounds, reverse=nearest_last), sorted(estimates, reverse=nearest_last)


def _loosenings(
    candidates: Sequence[Candidate], budgets: Budgets, constraints: Constraints
) -> Iterator[Sequence[Change]]:
    """Yield, for each constraint that alone excludes something, its changes, the cheapest first."""
    if not constraints.any_set:
        return
    alone: dict[tuple[str, str], list[tuple[Breach, ...]]] = {}
    for candidate in candidates:
        broken = breaches(candidate, constraints)
        places = {(breach.constraint, breach.name if breach.limit is not None else "") for breach in broken}
        if len(places) == 1:
            alone.setdefault(places.pop(), []).append(broken)
    for (constraint, tier), kept_out in sorted(alone.items()):
        if kept_out[0][0].limit is None:
            options = _named(constraint, kept_out, constraints)
        else:
            options = _limited(constraint, tier, [broken[0].got for broken in kept_out], constraints)
        yield [
            Change(constraint, tier or None, None, before, after, cost, budgets, changed)
            for before, after, cost, changed in sorted(options, key=lambda option: option[2])
        ]


_Option = tuple[Value, Value, float, Constraints]


def _limited(field: str, tier: str, amounts: Sequence[float | None], constraints: Constraints) -> Iterator[_Option]:
    """Yield a limit in bytes, raised to each measured amount; given up for unmeasured ones."""
    limits = getattr(constraints, field)
    before = limits[tier] if tier else limits
    for got in sorted({amount for amount in amounts if amount is not None}):
        # Whole bytes, still on the lenient side.
        after = math.ceil(up(got))
        yield before, after, after / before - 1, _with(constraints, field, {**limits, tier: after} if tier else after)
    if None in amounts:
        rest = {name: value for name, value in limits.items() if name != tier} if tier else None
        yield before, None, COST_OF_GIVING_UP, _with(constraints, field, rest)


def _named(field: str, broken: Sequence[Sequence[Breach]], constraints: Constraints) -> Iterator[_Option]:
    """Yield the lists with more names admitted, as few as possible."""
    before = getattr(constraints, field)
    if field == "keep_raw_input_on":
        yield before, None, COST_OF_GIVING_UP, _with(constraints, field, None)
        return
    needed = {tuple(sorted({breach.name for breach in breaches})) for breaches in broken}
    for names in sorted(needed, key=lambda names: (len(names), names)):
        after = before | set(names) if field.startswith("allow") else before - set(names)
        changed = _with(constraints, field, frozenset(after))
        yield tuple(sorted(before)), tuple(sorted(after)), COST_OF_GIVING_UP * len(names), changed


def _with(constraints: Constraints, field: str, value: Any) -> Constraints:
    changed: dict[str, Any] = {field: value}
    return replace(constraints, **changed)
