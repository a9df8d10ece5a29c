"""When nothing is feasible: which single budget or constraint to relax, and to what, so that something is.

Every proposal is tried: the same question with the relaxed value, decided by the same rules, has feasible strategies.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from typing import Any, Protocol

from recommender.ranking.candidates import Candidate, Estimate
from recommender.ranking.feasibility import BudgetField, shortfalls
from recommender.ranking.model import Breach, Budgets, Change, Constraints, Prospect, Relaxation, Value, breaches

_FIGURES = 3
# 100 times 1.23 is not quite 123: what a last bit does must not cost a hundredth of a point.
_ROUNDING = 1e-8


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
# The deciding procedure's bounds may be wider than those that a proposal starts from, by a figure or two.
_ATTEMPTS = 4


class Deciding(Protocol):
    """The question's rules, as `recommend` applies them."""

    def admitted(self, constraints: Constraints) -> Sequence[Candidate]:
        """Return the candidates that the constraints admit."""

    def feasible(self, budgets: Budgets, constraints: Constraints) -> Sequence[Prospect]:
        """Return the candidates that hold every budget and break no constraint."""

    def chosen(self, feasible: Sequence[Prospect], budgets: Budgets) -> Estimate:
        """Return the feasible strategy to recommend."""


def relaxations(
    candidates: Sequence[Candidate], budgets: Budgets, constraints: Constraints, deciding: Deciding
) -> tuple[Relaxation, ...]:
    """Return the least change of each field that makes something feasible, the cheapest first.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of the question, those that a constraint excludes included.
    budgets : Budgets
    constraints : Constraints
    deciding : Deciding

    Returns
    -------
    tuple of Relaxation
        Empty where no change of one field makes anything feasible.

    Notes
    -----
    A budget is relaxed to the least bound among the candidates that hold every other budget, rounded to the lenient
    side; the limit of a constraint to the least known value that lets a feasible candidate in. Where no value helps,
    because no bound is known, giving the limit up is proposed. Cost: a few decisions per field.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking import LatencyBudget, recommend
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> change = recommend([slow], Budgets(latency=(LatencyBudget(90, 0.15),))).relaxations[0].change
    >>> change.field, change.before, change.after, round(change.cost, 2)
    ('max_latency_s', 0.15, 0.201, 0.34)
    """
    proposals = [
        relaxed
        for limit in _limits(budgets)
        if (relaxed := _budget_relaxed(limit, budgets, constraints, deciding)) is not None
    ]
    for changes in _loosenings(candidates, budgets, constraints):
        for change in changes:
            # Tried and not reasoned: a proposal that does not lead to its strategy would be worse than none.
            if feasible := deciding.feasible(budgets, change.constraints):
                proposals.append(Relaxation(change, deciding.chosen(feasible, budgets)))
                break
    return tuple(sorted(proposals, key=lambda proposal: proposal.change.cost))


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

    def further(self, value: float) -> float:
        """Return the next more lenient value of few figures."""
        if self.field == "max_latency_s":
            return next_up(value)
        return points_up(value + 0.01) if self.field == "max_accuracy_drop_pp" else points_down(value - 0.01)


def _limits(budgets: Budgets) -> Iterator[_Limit]:
    for budget in budgets.latency:
        yield _Limit("max_latency_s", budget.percentile, budget.max_s)
    if budgets.min_accuracy_pct is not None:
        yield _Limit("min_accuracy_pct", None, budgets.min_accuracy_pct)
    if budgets.max_accuracy_drop_pp is not None:
        yield _Limit("max_accuracy_drop_pp", None, budgets.max_accuracy_drop_pp)


def _budget_relaxed(limit: _Limit, budgets: Budgets, constraints: Constraints, deciding: Deciding) -> Relaxation | None:
    """Relax to the least bound of those that hold all other budgets; give the budget up where there is none."""
    without = limit.to(None, budgets)
    holding = deciding.feasible(without, constraints)
    if not holding:
        return None
    bounds = [
        bound
        for estimate in holding
        if (bound := _bound(estimate.candidate, limit, budgets, deciding.admitted(constraints))) is not None
    ]
    if bounds:
        # The nearest bound: the change that asks the least of the user.
        least = max(bounds) if limit.field == "min_accuracy_pct" else min(bounds)
        value = limit.lenient(least)
        for _ in range(_ATTEMPTS):
            changed = limit.to(value, budgets)
            if feasible := deciding.feasible(changed, constraints):
                return _relaxation(
                    limit, value, limit.cost(value), changed, constraints, deciding.chosen(feasible, changed)
                )
            value = limit.further(value)
    return _relaxation(limit, None, COST_OF_GIVING_UP, without, constraints, deciding.chosen(holding, without))


def _relaxation(
    limit: _Limit, value: float | None, cost: float, budgets: Budgets, constraints: Constraints, gives: Estimate
) -> Relaxation:
    change = Change(limit.field, None, limit.percentile, limit.value, value, cost, budgets, constraints)
    return Relaxation(change, gives)


def _bound(candidate: Candidate, limit: _Limit, budgets: Budgets, among: Sequence[Candidate]) -> float | None:
    """Return what the limit would have to be for this candidate."""
    return next(
        shortfall.bound
        for shortfall in shortfalls(candidate, budgets, among=among)
        if (shortfall.budget, shortfall.percentile) == (limit.field, limit.percentile)
    )


def _loosenings(
    candidates: Sequence[Candidate], budgets: Budgets, constraints: Constraints
) -> Iterator[Sequence[Change]]:
    """Yield, for each constraint that alone excludes something, its changes, the cheapest first."""
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
