"""A question's budgets, and an answer's parts."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from catalog.statistics import BudgetCheck, Comparison, Refusal, Verdict
from recommender.ranking.candidates import Candidate, Estimate
from recommender.ranking.constraints import Constraints, Excluded

Objective = Literal["latency", "accuracy", "size", "sent", "cpu"]


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
    confidence: float = 0.95
    equivalent_within: float = 0.05


@dataclass(frozen=True, eq=False)
class Alternative:
    """A feasible strategy that was not chosen, against the chosen one.

    `latency_ratio` above 1 means slower than the recommendation; `accuracy_difference_pp` above 0 more accurate.
    `comparison` is with the fastest feasible strategy, simultaneous over all pairs of feasible ones; None for the
    fastest itself, where a tie was broken against it. `against_best` is the same with the recommendation.
    """

    estimate: Estimate
    latency_ratio: float
    accuracy_difference_pp: float | None
    comparison: Comparison | None = None
    against_best: Comparison | None = None

    @property
    def relation(self) -> Verdict:
        """To the fastest: `equivalent`, `different` or `unresolved`."""
        return Verdict.EQUIVALENT if self.comparison is None else self.comparison.verdict


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
    TOO_FEW_IMAGES = "too_few_images"
    ONE_ROUND = "one_round"
    UNPROVEN = "unproven"
    ITEMS_MISSING = "items_missing"
    ACCURACY_MISSING = "accuracy_missing"
    DROP_MISSING = "drop_missing"


Unit = Literal["s", "%", "pp"]


@dataclass(frozen=True, eq=False)
class Undecided:
    """Nothing measured speaks against this candidate, but not enough was measured to promise the budgets.

    `check` is the one that does not hold, in its `unit`, where there is one; `refusal` says why images bound nothing.
    """

    estimate: Estimate
    gap: Gap
    percentile: float | None = None
    inputs_needed: int | None = None
    check: BudgetCheck | None = None
    unit: Unit = "s"
    refusal: Refusal | None = None


Value = float | str | tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class Change:
    """One field of a question, changed.

    Attributes
    ----------
    field : str
        Of the question.
    key : str or None
        The tier, where the field holds one limit per tier.
    percentile : float or None
        Of a latency budget.
    before, after : float, str, tuple of str or None
        The value that was asked, and the one to ask instead; None gives the limit up.
    cost : float
        Relative: 0.1 is a limit 10 % further, or one percentage point; 1 is a limit doubled or given up.
    budgets, constraints
        The whole question after the change.
    """

    field: str
    key: str | None
    percentile: float | None
    before: Value
    after: Value
    cost: float
    budgets: Budgets
    constraints: Constraints


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A change that makes something feasible, and the recommendation that it leads to."""

    change: Change
    gives: Estimate


@dataclass(frozen=True, eq=False)
class Answer:
    """The best feasible strategy first, then everything else that was considered, each in its place.

    `pareto` holds those of the considered that no other considered one beats in latency and accuracy at once.
    """

    budgets: Budgets
    recommendation: Estimate | None
    alternatives: tuple[Alternative, ...]
    near_misses: tuple[NearMiss, ...]
    undecided: tuple[Undecided, ...]
    considered: tuple[Estimate, ...]
    excluded: tuple[Excluded, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    pareto: frozenset[Candidate] = frozenset()
