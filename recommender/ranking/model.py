"""A question's budgets and constraints, and what an answer consists of."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from catalog.statistics.comparison import Comparison
from catalog.statistics.feasibility import BudgetCheck
from catalog.statistics.intervals import IntervalRefusal
from catalog.statistics.outcomes import ComparisonOutcome
from recommender.ranking.candidates import Candidate, Estimate


@dataclass(frozen=True)
class Constraints:
    """The caller's constraints; each is optional.

    Attributes
    ----------
    allow_tiers, allow_operators : frozenset of str or None
        The only ones that may be used; None allows all. A tier is used where a part computes: one that only passes
        bytes on is not.
    forbid_tiers, forbid_operators : frozenset of str
    max_memory_bytes, max_model_bytes : mapping of tier to bytes
        Peak memory of the tier's server, and all model files on it; only for tiers where a part computes.
    keep_raw_input_on : str or None
        The first part must compute on that tier, so that only cut tensors leave it.
    max_sent_bytes : float or None
        Median per inference, over all links of the route.
    """

    allow_tiers: frozenset[str] | None = None
    forbid_tiers: frozenset[str] = frozenset()
    allow_operators: frozenset[str] | None = None
    forbid_operators: frozenset[str] = frozenset()
    max_memory_bytes: Mapping[str, float] = field(default_factory=dict)
    max_model_bytes: Mapping[str, float] = field(default_factory=dict)
    keep_raw_input_on: str | None = None
    max_sent_bytes: float | None = None

    @property
    def any_set(self) -> bool:
        """Whether there is any constraint."""
        return self != _UNCONSTRAINED


_UNCONSTRAINED = Constraints()


@dataclass(frozen=True)
class Breach:
    """One constraint that a strategy breaks.

    Attributes
    ----------
    constraint : str
        The field of `Constraints`.
    name : str
        The tier or operator concerned; empty for the bytes sent.
    limit : float or None
        Bytes; None where the constraint is a name.
    got : float or None
        Bytes; None where it is not known, or the constraint is a name.
    """

    constraint: str
    name: str = ""
    limit: float | None = None
    got: float | None = None

    @property
    def unknown(self) -> bool:
        """The limit may hold, but nothing was recorded that says so."""
        return self.limit is not None and self.got is None


@dataclass(frozen=True, eq=False)
class ExcludedCandidate:
    """A measured candidate that may not be chosen, and every reason."""

    candidate: Candidate
    breaches: tuple[Breach, ...]


def breaches(candidate: Candidate, constraints: Constraints) -> tuple[Breach, ...]:
    """Return every constraint that a candidate breaks.

    Parameters
    ----------
    candidate : Candidate
    constraints : Constraints

    Returns
    -------
    tuple of Breach
        Empty when it may be chosen. What is limited and not known counts as broken: a limit is never passed unseen.

    Examples
    --------
    >>> import numpy as np
    >>> one = Candidate("identity", "edge", ("edge",), (np.full(30, 0.2),), inputs=30, memory_bytes={"edge": 70e6})
    >>> [breach.constraint for breach in breaches(one, Constraints(max_memory_bytes={"edge": 64e6, "mobile": 1.0}))]
    ['max_memory_bytes']
    """
    return (
        *declared_breaches(candidate.operator, candidate.tiers, candidate.model_bytes, constraints),
        *_over("max_memory_bytes", constraints.max_memory_bytes, candidate.tiers, candidate.memory_bytes),
        *_sent(candidate.sent_bytes, constraints.max_sent_bytes),
    )


def declared_breaches(
    operator: str, tiers: Sequence[str], model_bytes: Mapping[str, float] | None, constraints: Constraints
) -> tuple[Breach, ...]:
    """Return the constraints that a strategy breaks whatever a measurement would say.

    Parameters
    ----------
    operator : str
    tiers : sequence of str
        Those where a part computes, in order.
    model_bytes : mapping of tier to bytes or None
        None leaves model sizes out: the artifact is not built yet.
    constraints : Constraints

    Returns
    -------
    tuple of Breach

    Examples
    --------
    >>> declared_breaches("identity", ("cloud",), None, Constraints(forbid_tiers=frozenset({"cloud"})))
    (Breach(constraint='forbid_tiers', name='cloud', limit=None, got=None),)
    """
    sizes = _over("max_model_bytes", constraints.max_model_bytes, tiers, model_bytes) if model_bytes is not None else ()
    return (*_named(operator, tiers, constraints), *sizes)


def _named(operator: str, tiers: Sequence[str], constraints: Constraints) -> Iterator[Breach]:
    for tier in tiers:
        if constraints.allow_tiers is not None and tier not in constraints.allow_tiers:
            yield Breach("allow_tiers", tier)
        if tier in constraints.forbid_tiers:
            yield Breach("forbid_tiers", tier)
    if constraints.allow_operators is not None and operator not in constraints.allow_operators:
        yield Breach("allow_operators", operator)
    if operator in constraints.forbid_operators:
        yield Breach("forbid_operators", operator)
    # The first part reads the raw input; from its tier on, only cut tensors travel.
    if constraints.keep_raw_input_on is not None and tiers[0] != constraints.keep_raw_input_on:
        yield Breach("keep_raw_input_on", tiers[0])


def _over(
    constraint: str, limits: Mapping[str, float], tiers: Sequence[str], amounts: Mapping[str, float]
) -> Iterator[Breach]:
    for tier in tiers:
        # What was not recorded counts as over the limit: a limit is kept only by evidence.
        if tier in limits and not amounts.get(tier, float("inf")) <= limits[tier]:
            yield Breach(constraint, tier, limits[tier], amounts.get(tier))


def _sent(sent_bytes: float | None, limit: float | None) -> Iterator[Breach]:
    if limit is not None and (sent_bytes is None or sent_bytes > limit):
        yield Breach("max_sent_bytes", "", limit, sent_bytes)


Objective = Literal["latency", "accuracy", "size", "sent", "cpu"]


@dataclass(frozen=True)
class LatencyBudget:
    """An upper limit on one percentile of the latency."""

    percentile: float
    max_s: float


@dataclass(frozen=True)
class TargetLimits:
    """What a target demands; each limit is optional."""

    latency: tuple[LatencyBudget, ...] = ()
    min_accuracy_pct: float | None = None
    max_accuracy_drop_pp: float | None = None

    @property
    def any_set(self) -> bool:
        """Whether there is any limit."""
        return bool(self.latency) or self.min_accuracy_pct is not None or self.max_accuracy_drop_pp is not None


@dataclass(frozen=True)
class Budgets(TargetLimits):
    """The caller's limits; `percentile` is the one to rank by and to report.

    `cost_of_breaking` is what a broken budget costs, on the scale of the log latency: log 2 is as much as twice the
    latency (for the objective accuracy, as much as two percentage points).
    """

    percentile: float = 90.0
    objective: Objective = "latency"
    confidence: float = 0.95
    equivalent_within: float = 0.05
    cost_of_breaking: float = math.log(2)


class LatencyMiss(NamedTuple):
    """A latency budget that does not hold."""

    budget: LatencyBudget
    got_s: float

    @property
    def over_s(self) -> float:
        """By how much."""
        return self.got_s - self.budget.max_s


class NearMiss(NamedTuple):
    """A strategy whose estimates miss a budget, and what it lacks; smaller `distance` is nearer.

    `probability` is the posterior that all budgets hold nevertheless, None where the evidence gives none.
    """

    estimate: Estimate
    latency: tuple[LatencyMiss, ...]
    accuracy_short_pp: float | None
    drop_over_pp: float | None
    distance: float
    probability: float | None = None


class Gap(StrEnum):
    """Why the evidence cannot decide about a candidate."""

    # Fewer distinct inputs than a bound on the percentile takes.
    TOO_THIN = "too_thin"
    # Images are what the mean intersection over union is resampled from.
    TOO_FEW_IMAGES = "too_few_images"
    # Nothing says how rounds differ.
    ONE_ROUND = "one_round"
    # The estimate is within the budget, its bound is not; or the estimate misses it, and the truth may not.
    UNPROVEN = "unproven"
    # The bound rests on the curve of latency over size, not on inputs that were measured.
    BY_MODEL = "by_model"
    # An accuracy that came as a number alone, as a file may bring it.
    ITEMS_MISSING = "items_missing"
    ACCURACY_MISSING = "accuracy_missing"
    # Identity has no accuracy, so nothing can be compared with it.
    DROP_MISSING = "drop_missing"


Unit = Literal["s", "%", "pp"]


# What is not known cannot be within a budget: such a candidate is shown and never chosen.
WITHOUT_ESTIMATE = (Gap.ACCURACY_MISSING, Gap.DROP_MISSING)


class UndecidedCandidate(NamedTuple):
    """Nothing measured speaks against this candidate, but not enough was measured to promise the budgets.

    `check` is the one that does not hold, in its `unit`, where there is one; `refusal` says why images bound nothing,
    `reason` why a bound is no promise, `miss` which budgets the estimates miss.
    """

    estimate: Estimate
    gap: Gap
    percentile: float | None = None
    inputs_needed: int | None = None
    check: BudgetCheck | None = None
    unit: Unit = "s"
    refusal: IntervalRefusal | None = None
    reason: str | None = None
    miss: NearMiss | None = None


class Status(StrEnum):
    """How sure it is that all budgets hold."""

    # At the confidence that was asked, together with all else that is said to be proven.
    PROVEN = "proven"
    # With a posterior probability of at least `LIKELY_FROM`.
    LIKELY = "likely"
    # With a smaller one.
    OPEN = "open"
    # The estimates are within the budgets, and the evidence says nothing of how far they may be off.
    ESTIMATED = "estimated"


LIKELY_FROM = 0.8


class Prospect(NamedTuple):
    """A strategy that may keep all budgets, by its estimates or in spite of them, and what may be expected of it.

    Attributes
    ----------
    estimate : Estimate
    status : Status
    probability : float or None
        The posterior that all budgets hold; None when estimated.
    loss : float
        What the decision minimises: log(objective) + cost_of_breaking * (1 - probability).
    gap : UndecidedCandidate or None
        What a promise lacks; None when proven.
    joint : callable
        Returns `joint_confidence`, which takes some time and is said of few.
    """

    estimate: Estimate
    status: Status
    probability: float | None
    loss: float
    gap: "UndecidedCandidate | None"
    joint: Callable[[], float]

    @property
    def joint_confidence(self) -> float:
        """The largest joint confidence at which all budgets hold, over all candidates; 0 without a bound."""
        return self.joint()

    @property
    def candidate(self) -> Candidate:
        """The strategy."""
        return self.estimate.candidate

    @property
    def miss(self) -> NearMiss | None:
        """The budgets that its estimates miss; None where they are within all."""
        return None if self.gap is None else self.gap.miss


class Alternative(NamedTuple):
    """A proven strategy that was not chosen, against the chosen one.

    `latency_ratio` above 1 means slower than the recommendation; `accuracy_difference_pp` above 0 more accurate.
    `comparison` is with the fastest of the proven strategies and the chosen one, simultaneous over all pairs of
    these; None for the fastest itself. `against_best` is the same with the recommendation.
    """

    prospect: Prospect
    latency_ratio: float
    accuracy_difference_pp: float | None
    comparison: Comparison | None = None
    against_best: Comparison | None = None

    @property
    def estimate(self) -> Estimate:
        """The numbers of the strategy."""
        return self.prospect.estimate

    @property
    def relation(self) -> ComparisonOutcome:
        """To the fastest: `equivalent`, `different` or `unresolved`."""
        # Only the fastest itself has no comparison with the fastest.
        return ComparisonOutcome.EQUIVALENT if self.comparison is None else self.comparison.verdict


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
    """A change that leads to a better recommendation, and that recommendation."""

    change: Change
    gives: Prospect


@dataclass(frozen=True, eq=False)
class RankedAnswer:
    """The strategy to use first, then everything else that was considered, each in its place.

    Attributes
    ----------
    recommendation : Prospect or None
        The one of least loss among those whose estimates are within all budgets; where none is and that says little,
        a near miss that may keep them.
    proven : Prospect or None
        The one to use where nothing but a proven one will do, if that is another.
    within : tuple of Prospect
        All others whose estimates are within the budgets, or are open for lack of an accuracy, by loss.
    alternatives : tuple of Alternative
        The proven ones of `within`, compared with the recommendation.
    near_misses : tuple of NearMiss
        All whose estimates miss a budget, a recommended one included, the nearest first.
    infeasible : Status or None
        How sure it is that no considered strategy keeps the budgets, where all estimates miss them.
    infeasible_probability : float or None
        The posterior of that.
    pareto : frozenset of Candidate
        Those of the considered that no other considered one beats in latency and accuracy at once.
    """

    budgets: Budgets
    recommendation: Prospect | None
    proven: Prospect | None
    within: tuple[Prospect, ...]
    alternatives: tuple[Alternative, ...]
    near_misses: tuple[NearMiss, ...]
    considered: tuple[Estimate, ...]
    excluded: tuple[ExcludedCandidate, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    pareto: frozenset[Candidate] = frozenset()
    infeasible: Status | None = None
    infeasible_probability: float | None = None

    @property
    def other_near_misses(self) -> tuple[NearMiss, ...]:
        """The near misses without a recommended one."""
        best = None if self.recommendation is None else self.recommendation.miss
        return tuple(near_miss for near_miss in self.near_misses if near_miss is not best)

    @property
    def undecided(self) -> tuple["UndecidedCandidate", ...]:
        """Those of `within` that are not proven, with what a promise lacks."""
        return tuple(prospect.gap for prospect in self.within if prospect.gap is not None)
