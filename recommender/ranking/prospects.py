"""What is known of candidates beside the budgets, of one and of all that a question compares.

Of one: how probable it is that all budgets hold, what choosing it would lose, what bounds those of accuracy, or lacks.
Of a group, what no budget changes is one row for each candidate, computed once and kept with the first of them: a
question compares columns of numbers with its limits, and makes objects only of what it returns.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.comparison import Comparison
from catalog.statistics.drops import AccuracyDrop, no_drop
from catalog.statistics.feasibility import BudgetCheck, confidence_below, drop_within, floor_from_drop, hits_at_least
from catalog.statistics.intervals import IntervalRefusal, PercentileInterval, RefusalKind
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.posterior import (
    drop_probability,
    joint_probability,
    latency_probability,
    percentile_correlation,
    share_probability,
)
from catalog.statistics.variances import moderated, strategy_variances
from recommender.ranking.candidates import AccuracyMeasurement, Candidate, CandidateCache, Estimate, estimate, interval
from recommender.ranking.model import LIKELY_FROM, Budgets, Gap, Objective, Status

# An estimate within a budget that nothing is known of: the truth is as often above an estimate as below it.
_UNKNOWN = 0.5
# A broken budget costs log 2 by default; for the objective accuracy that is two percentage points.
_POINTS_PER_COST = 2 / math.log(2)
# The mean of three rounds of 0.1 s is not quite 0.1 s and must not miss a budget of 0.1 s.
LATENCY_SLACK = 1e-12


def drop_of(candidate: Candidate) -> AccuracyDrop | None:
    """Return what a candidate loses against identity; None where nothing bounds it.

    What computes what identity computes loses nothing, whether items were compared or not.
    """
    accuracy = labelled_accuracy(candidate)
    if accuracy is not None and accuracy.drop is not None:
        return accuracy.drop
    if candidate.changed:
        return None
    return no_drop(accuracy.items if accuracy is not None else 0, confidence_level=0.95, comparisons=1, counted=False)


def labelled_accuracy(candidate: Candidate) -> AccuracyMeasurement | None:
    """Return the accuracy that an accuracy budget can be compared with."""
    accuracy = candidate.accuracy
    return accuracy if accuracy is not None and accuracy.from_labels else None


def latency_chance(
    estimates: Sequence[LogEstimate | None],
    logarithms: Sequence[float],
    correlation: NDArray[np.float64] | None = None,
) -> float | None:
    """Return how probable it is that a candidate keeps its budgets of latency.

    Parameters
    ----------
    estimates : sequence of LogEstimate or None
        For each budget, with the variances to decide by.
    logarithms : sequence of float
        Of the budgets (`log_limits`).
    correlation : float array, shape (budgets, budgets), optional
        Of the errors of the percentiles; without it the least probability counts.

    Returns
    -------
    float or None
        None where the evidence says nothing of how far an estimate may be off, and 1 without a budget.
    """
    stated = [
        latency_probability(estimate, logarithm)
        for estimate, logarithm in zip(estimates, logarithms, strict=True)
        if estimate is not None
    ]
    if len(stated) < len(estimates):
        return None
    if correlation is not None and len(stated) > 1:
        return joint_probability(stated, correlation)
    return min(stated, default=1.0)


def log_limits(budgets: Budgets) -> list[float]:
    """Return the logarithms of the budgets of latency, with room for rounding."""
    return [math.log(budget.max_s * (1 + LATENCY_SLACK)) for budget in budgets.latency]


def accuracy_chance(candidate: Candidate, budgets: Budgets) -> float | None:
    """Return how probable it is that a candidate keeps its budgets of accuracy.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets

    Returns
    -------
    float or None
        None where the evidence says nothing of it, and 1 without such a budget.

    Notes
    -----
    A floor and a drop of one accuracy rise and fall together: the less probable one counts, which is the largest that
    the probability of both can be.
    """
    of_accuracy: list[float | None] = []
    if budgets.min_accuracy_pct is not None:
        of_accuracy.append(_floor_probability(labelled_accuracy(candidate), budgets.min_accuracy_pct))
    if budgets.max_accuracy_drop_pp is not None:
        drop = drop_of(candidate)
        of_accuracy.append(None if drop is None else drop_probability(drop, budgets.max_accuracy_drop_pp))
    return _least(of_accuracy)


def _least(probabilities: Sequence[float | None]) -> float | None:
    stated = [value for value in probabilities if value is not None]
    return None if len(stated) < len(probabilities) else min(stated, default=1.0)


def _floor_probability(accuracy: AccuracyMeasurement | None, floor: float) -> float | None:
    if accuracy is None:
        return None
    if accuracy.hits is not None:
        return share_probability(int(accuracy.hits.sum()), accuracy.hits.size, floor / 100)
    # The accuracy is 100 less the drop against a reference without error.
    return None if accuracy.short is None else drop_probability(accuracy.short, 100 - floor)


def status_of(probability: float | None) -> Status:
    """Return the status of a strategy that is not proven."""
    if probability is None:
        return Status.ESTIMATED
    return Status.LIKELY if probability >= LIKELY_FROM else Status.OPEN


def risk(probability: float | None, budgets: Budgets) -> float:
    """Return what the risk of a broken budget costs, which a choice adds to its objective (`objective_loss`).

    Parameters
    ----------
    probability : float or None
        That all budgets hold; None counts as one half.
    budgets : Budgets

    Returns
    -------
    float
        On the scale of a logarithm, so that 10 % slower is as bad for 5 ms as for 5 s; in percentage points for the
        objective accuracy.
    """
    return (1 - (_UNKNOWN if probability is None else probability)) * cost_of_breaking(budgets)


def cost_of_breaking(budgets: Budgets) -> float:
    """Return what a broken budget costs on the scale of the loss."""
    return budgets.cost_of_breaking * (_POINTS_PER_COST if budgets.objective == "accuracy" else 1.0)


def objective_loss(estimate: Estimate, objective: Objective) -> float:
    """Return the objective as a choice weighs it; infinite where it was not measured."""
    candidate = estimate.candidate
    if objective == "latency":
        return math.log(estimate.percentile_s)
    if objective == "accuracy":
        return -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf
    amount = {"size": candidate.size_bytes, "sent": candidate.sent_bytes, "cpu": candidate.client_cpu_s}[objective]
    if amount is None:
        return math.inf
    # What computes where the request starts sends nothing, and 0 has no logarithm; a microsecond more costs nothing.
    return math.log(amount + (1e-6 if objective == "cpu" else 1.0))


class MissingEvidence(NamedTuple):
    """What has to be measured of a candidate before any bound can be given."""

    gap: Gap
    percentile: float | None = None
    inputs_needed: int | None = None
    refusal: IntervalRefusal | None = None


def missing_accuracy(candidate: Candidate, budgets: Budgets) -> MissingEvidence | None:
    """Return what lacks before the budgets of accuracy can be judged."""
    accuracy, floor = labelled_accuracy(candidate), budgets.min_accuracy_pct
    without_drop = budgets.max_accuracy_drop_pp is not None and drop_of(candidate) is None
    if accuracy is None and (floor is not None or without_drop):
        return MissingEvidence(Gap.ACCURACY_MISSING)
    if accuracy is not None and without_drop:
        return MissingEvidence(Gap.DROP_MISSING if accuracy.drop_pp is None else Gap.ITEMS_MISSING)
    if accuracy is not None and floor is not None and accuracy.hits is None and accuracy.short is None:
        return MissingEvidence(Gap.ITEMS_MISSING)
    if accuracy is not None and (refused := _refusal(accuracy, budgets)) is not None:
        return MissingEvidence(Gap.TOO_FEW_IMAGES, refusal=refused)
    return None


def _refusal(accuracy: AccuracyMeasurement, budgets: Budgets) -> IntervalRefusal | None:
    """Return why the images give no bound for an accuracy budget of the question."""
    drops = (
        accuracy.short if budgets.min_accuracy_pct is not None and accuracy.hits is None else None,
        accuracy.drop if budgets.max_accuracy_drop_pp is not None else None,
    )
    return next((drop.refusal for drop in drops if drop is not None and drop.refusal is not None), None)


_accuracy_checks: CandidateCache[tuple[BudgetCheck | None, ...]] = CandidateCache()


def accuracy_checks(candidate: Candidate, budgets: Budgets) -> tuple[BudgetCheck | None, ...]:
    """Check the budgets of accuracy, the floor first, each at some level; None where items are missing.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets

    Returns
    -------
    tuple of BudgetCheck or None
        One for each budget of accuracy that the question sets.
    """
    floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if floor is None and most is None:
        return ()
    # At the level that an answer mostly needs, because another one takes a copy.
    key = floor, most, budgets.confidence
    return _accuracy_checks.get(candidate, key, lambda: _check_accuracy(candidate, *key))


def _check_accuracy(
    candidate: Candidate, floor: float | None, most: float | None, level: float
) -> tuple[BudgetCheck | None, ...]:
    checks: list[BudgetCheck | None] = []
    if floor is not None:
        accuracy = labelled_accuracy(candidate)
        has_items = accuracy is not None and (accuracy.hits is not None or accuracy.short is not None)
        checks.append(_floor_within(accuracy, floor).at(level) if accuracy is not None and has_items else None)
    if most is not None:
        drop = drop_of(candidate)
        checks.append(None if drop is None else drop_within(drop, most).at(level))
    return tuple(checks)


def below_floor(accuracy: AccuracyMeasurement, floor: float) -> float:
    """Return the largest level at which an accuracy is shown to be below a floor."""
    if accuracy.hits is not None:
        return confidence_below(floor / 100, int(accuracy.hits.sum()), accuracy.hits.size)
    return 0.0 if accuracy.short is None else accuracy.short.confidence_above(100 - floor)


def _floor_within(accuracy: AccuracyMeasurement, floor: float) -> BudgetCheck:
    """Check a floor by what is known of the accuracy: hits, or the drop against a flawless reference."""
    if accuracy.hits is not None:
        return hits_at_least(accuracy.hits, floor)
    assert accuracy.short is not None
    return floor_from_drop(accuracy.short, floor)


T = TypeVar("T")

# Accuracies are counts over some thousand items: a drop of "exactly 1.0" must not miss a budget of 1.0 by 1e-14.
_ACCURACY_SLACK_PP = 1e-9
# Columns kept of a table, and tables of the groups that the constraints of questions make: clients choose both.
_MOST_COLUMNS = 512
_MOST_TABLES = 16
# Of what depends on the figures of budgets, so many rows in all; of a large group at least some.
_MOST_NUMBERS = 5000
_FEWEST_KEPT = 16


@dataclass(frozen=True, eq=False)
class LatencyColumns:
    """One percentile of all candidates.

    Attributes
    ----------
    estimates : sequence of tuple
        The arguments of an `Estimate` after the candidate.
    estimate_s : sequence of float
    bounded : sequence of PercentileInterval
        As a promise takes it: the variance moderated by those of all others.
    probable : sequence of PercentileInterval
        As a posterior takes it.
    """

    estimates: Sequence[tuple[float, float, float, tuple[float, ...], PercentileInterval]]
    estimate_s: Sequence[float]
    bounded: tuple[PercentileInterval, ...]
    probable: tuple[PercentileInterval, ...]

    @cached_property
    def promised(self) -> Sequence[LogEstimate | None]:
        """The estimates of `bounded`."""
        return [entry.estimate for entry in self.bounded]

    @cached_property
    def posterior(self) -> Sequence[LogEstimate | None]:
        """The estimates of `probable`."""
        return [entry.estimate for entry in self.probable]

    @cached_property
    def by_model(self) -> Sequence[bool]:
        """Whether a bound rests on the curve of latency over size."""
        return [entry.by_model is not None for entry in self.bounded]

    @cached_property
    def shares_variance(self) -> Sequence[bool]:
        """Whether a bound has a part that errs once for all candidates."""
        return [own is not None and own.variance_shared > 0 for own in self.promised]


@dataclass(frozen=True, eq=False)
class AccuracyColumns:
    """What all candidates make of the budgets of accuracy, at one confidence.

    Attributes
    ----------
    chance : sequence of float or None
        The posterior probability that the budgets hold; None where nothing says so.
    short_pp, over_pp : sequence of float or None
        By how much an estimate misses the floor, and the drop; None where it does not.
    missing : sequence of MissingEvidence or None
    """

    chance: Sequence[float | None]
    short_pp: Sequence[float | None]
    over_pp: Sequence[float | None]
    missing: Sequence[MissingEvidence | None]


class AccuracyTests(NamedTuple):
    """The checks of the budgets of accuracy of one candidate that have evidence, at some level.

    Attributes
    ----------
    checks : tuple of BudgetCheck
    confidence : float
        The largest level at which all of them hold, each by itself.
    """

    checks: tuple[BudgetCheck, ...]
    confidence: float
    by_level: dict[float, tuple[BudgetCheck, ...]]

    def at(self, level: float) -> tuple[BudgetCheck, ...]:
        """Judge at a level; levels are few, as they depend on how many candidates count and hold."""
        checks = self.by_level.get(level)
        if checks is None:
            checks = self.by_level[level] = tuple(check.at(level) for check in self.checks)
        return checks


class CandidateTable:
    """The candidates of a question as rows, in their order; it refers to none of them, so that it keeps none alive."""

    def __init__(self, candidates: Sequence[Candidate], references: tuple[ReferenceType[Candidate], ...]) -> None:
        self.references = references
        self.count = len(candidates)
        self.shared_accuracy = tuple(map(_accuracy_evidence, candidates))
        self.error_share = tuple(candidate.error_share for candidate in candidates)
        self.quality_open = tuple(candidate.quality_open for candidate in candidates)
        self._columns: dict[Hashable, Any] = {}
        self._kept: dict[Hashable, Any] = {}
        self._comparisons: dict[Hashable, Comparison] = {}
        self._of_rows: dict[Hashable, Any] = {}

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates themselves."""
        # The caller has them: the table is looked up by them, and lives no longer than the first of them.
        return [candidate for reference in self.references if (candidate := reference()) is not None]

    def candidate(self, row: int) -> Candidate:
        """Return one candidate."""
        candidate = self.references[row]()
        assert candidate is not None, "the caller holds the candidates"
        return candidate

    def latency(self, percentile: float) -> LatencyColumns:
        """Return the columns of one percentile."""
        return self._column(("latency", percentile), lambda: _latency(self.candidates, percentile))

    def presumed(self, percentile: float) -> Sequence[PercentileInterval | None]:
        """Return the percentile of candidates with too few rounds, with the variance usual for the others."""
        return self._column(("presumed", percentile), lambda: _presumed(self.candidates, percentile))

    def correlation(self, percentiles: tuple[float, ...]) -> NDArray[np.float64]:
        """Return how the errors of several percentiles are correlated."""
        key = "correlation", percentiles
        return self._column(key, lambda: percentile_correlation(_by_round(self.candidates, percentiles)))

    def accuracy(self, budgets: Budgets) -> AccuracyColumns:
        """Return what the candidates make of the budgets of accuracy."""
        key = "accuracy", budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
        return self.kept(key, lambda: _accuracy(self.candidates, budgets))

    def shares_variance(self, percentiles: tuple[float, ...]) -> Sequence[bool]:
        """Return whether a bound of any of these percentiles has a part that errs once for all candidates."""

        def shares() -> Sequence[bool]:
            columns = [self.latency(percentile).shares_variance for percentile in percentiles]
            return list(map(any, zip(*columns, strict=True))) or [False] * self.count

        return self._column(("shares variance", percentiles), shares)

    def accuracy_tests(self, budgets: Budgets) -> dict[int, AccuracyTests]:
        """Return the checks of the budgets of accuracy by row, those that a question needed (`accuracy_tests_of`)."""
        key = "accuracy tests", budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp, budgets.confidence
        return self.kept(key, dict)

    def accuracy_tests_of(self, row: int, budgets: Budgets) -> AccuracyTests:
        """Check the budgets of accuracy of one candidate."""
        checks = tuple(check for check in accuracy_checks(self.candidate(row), budgets) if check is not None)
        return AccuracyTests(checks, min((check.confidence for check in checks), default=1.0), {})

    def missing(self, budgets: Budgets) -> Sequence[MissingEvidence | None]:
        """Return what has to be measured of each candidate before it can be judged."""
        # The highest percentile first: it needs the most inputs, and with those the others have enough.
        percentiles = tuple(sorted((budget.percentile for budget in budgets.latency), reverse=True))
        key = "missing", percentiles, budgets.min_accuracy_pct is None, budgets.max_accuracy_drop_pp is None
        return self._column(key, lambda: _missing(self.candidates, self.accuracy(budgets).missing, percentiles))

    def losses(self, objective: Objective, percentile: float) -> Sequence[float]:
        """Return what the objective alone costs."""

        def losses() -> Sequence[float]:
            return [objective_loss(estimate(candidate, percentile), objective) for candidate in self.candidates]

        return self._column(("loss", objective, percentile), losses)

    def estimate(self, row: int, percentile: float) -> Estimate:
        """Return the numbers of one candidate."""
        return Estimate(self.candidate(row), *self.latency(percentile).estimates[row])

    def column(self, key: Hashable, compute: Callable[[], Sequence[T]]) -> Sequence[T]:
        """Return any other column; its values must not refer to a candidate."""
        return self._column(("other", key), compute)

    def comparison(self, key: Hashable, compute: Callable[[], Comparison]) -> Comparison:
        """Return a comparison of two candidates, of which there are many."""
        return _looked_up(self._comparisons, key, compute, most=_MOST_COLUMNS * self.count)

    def of_rows(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what depends on which candidates a promise pays for, of which there are many choices."""
        return _looked_up(self._of_rows, key, compute, most=_MOST_COLUMNS)

    def kept(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what depends on the figures of budgets too, of which there are many."""
        return _looked_up(self._kept, key, compute, most=max(_FEWEST_KEPT, _MOST_NUMBERS // self.count))

    def _column(self, key: Hashable, compute: Callable[[], T]) -> T:
        return _looked_up(self._columns, key, compute, most=_MOST_COLUMNS)


def _looked_up(results: dict[Hashable, Any], key: Hashable, compute: Callable[[], T], *, most: int) -> T:
    result: T | None = results.get(key)
    if result is None:
        result = compute()  # two threads may both do so, with equal results
        if len(results) >= most:
            results.clear()
        results[key] = result
    return result


_tables: CandidateCache[CandidateTable] = CandidateCache(most=_MOST_TABLES)


def table_of(candidates: Sequence[Candidate]) -> CandidateTable:
    """Return the table of these candidates, in this order.

    Parameters
    ----------
    candidates : sequence of Candidate
        At least one.

    Returns
    -------
    CandidateTable
    """
    # Weak references, so that the key does not keep candidates of an older snapshot alive.
    references = tuple(map(ref, candidates))
    return _tables.get(candidates[0], references, lambda: CandidateTable(candidates, references))


def _latency(candidates: Sequence[Candidate], percentile: float) -> LatencyColumns:
    estimates = [estimate(candidate, percentile) for candidate in candidates]
    return LatencyColumns(
        estimates=[
            (own.median_s, own.percentile, own.percentile_s, own.percentile_s_by_round, own.interval)
            for own in estimates
        ],
        estimate_s=[own.percentile_s for own in estimates],
        bounded=_steadied(candidates, percentile),
        probable=_steadied(candidates, percentile, guarded=False),
    )


def _steadied(
    candidates: Sequence[Candidate], percentile: float, *, guarded: bool = True
) -> tuple[PercentileInterval, ...]:
    """Return each candidate's percentile with its variance moderated by those of all others.

    Where rounds draw their inputs, a promise takes the variance of the inputs from the samples near the percentile,
    with some caution. That guards against three rounds that agree by luck; a posterior (not `guarded`) takes the
    jackknife's, with two degrees of freedom, and says how probable such luck is (docs/statistics.md, "How probable").
    """
    intervals = [interval(candidate, percentile) for candidate in candidates]
    own = [entry.estimate if guarded else entry.jackknife or entry.estimate for entry in intervals]
    # Candidates without an interval neither give nor take variance, but keep their place.
    estimates = iter(moderated([estimate for estimate in own if estimate is not None]))
    return tuple(
        replace(entry, estimate=None if estimate is None else next(estimates))
        for entry, estimate in zip(intervals, own, strict=True)
    )


def _presumed(candidates: Sequence[Candidate], percentile: float) -> Sequence[PercentileInterval | None]:
    estimates = presumed(candidates, percentile)
    return [
        replace(interval(candidate, percentile), estimate=estimates[candidate]) if candidate in estimates else None
        for candidate in candidates
    ]


def _by_round(candidates: Sequence[Candidate], percentiles: Sequence[float]) -> list[NDArray[np.float64]]:
    """Return the log percentiles of each round of every candidate that has several rounds."""
    rounds = [[interval(candidate, percentile).by_round_s for percentile in percentiles] for candidate in candidates]
    several = [np.log(np.array(by_percentile)).T for by_percentile in rounds if len(by_percentile[0]) > 1]
    return several or [np.zeros((2, len(percentiles)))]


def _accuracy_evidence(candidate: Candidate) -> int:
    """Return what candidates that share an accuracy have in common: the same items with the same outcomes."""
    accuracy = candidate.accuracy
    arrays = (accuracy.drop, accuracy.short, accuracy.hits) if accuracy is not None else ()
    # By identity: loading gives equal accuracies one object. A candidate without evidence shares with none.
    return id(next((array for array in arrays if array is not None), candidate))


def _accuracy(candidates: Sequence[Candidate], budgets: Budgets) -> AccuracyColumns:
    floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    measured = [labelled_accuracy(candidate) for candidate in candidates]
    return AccuracyColumns(
        chance=[accuracy_chance(candidate, budgets) for candidate in candidates],
        short_pp=[_over(floor, own.accuracy_pct if own else None) for own in measured],
        over_pp=[_over(own.drop_pp if own else None, most) for own in measured],
        missing=[missing_accuracy(candidate, budgets) for candidate in candidates],
    )


def _over(value: float | None, limit: float | None) -> float | None:
    """Return by how much a value exceeds a limit; None when it does not, or when either is unknown."""
    if value is None or limit is None or value - limit <= _ACCURACY_SLACK_PP:
        return None
    return value - limit


def _missing(
    candidates: Sequence[Candidate], of_accuracy: Sequence[MissingEvidence | None], percentiles: Sequence[float]
) -> Sequence[MissingEvidence | None]:
    return [
        missing or _missing_latency(candidate, percentiles)
        for candidate, missing in zip(candidates, of_accuracy, strict=True)
    ]


def _missing_latency(candidate: Candidate, percentiles: Sequence[float]) -> MissingEvidence | None:
    for percentile in percentiles:
        refusal = interval(candidate, percentile).refusal
        if refusal is not None:
            kind = Gap.ONE_ROUND if refusal.kind is RefusalKind.ONE_ROUND else Gap.TOO_THIN
            return MissingEvidence(kind, percentile, refusal.inputs_needed)
    return None


_presumed_estimates: CandidateCache[Mapping[int, LogEstimate]] = CandidateCache()


def presumed(candidates: Sequence[Candidate], percentile: float) -> Mapping[Candidate, LogEstimate]:
    """Return the log latency of strategies without a bound of their own, with the variance usual for the others.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of the question.
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    mapping of Candidate to LogEstimate
        Of those that have one round, or inputs of their own in each and too few of them; empty where the others show
        too little.

    Notes
    -----
    The variance is the mean of the others' own, by their degrees of freedom, which noisy ones dominate, and what all
    share in a round. It may say that a strategy misses a budget, never that it keeps one.

    Examples
    --------
    >>> import numpy as np
    >>> rounds = tuple(np.full(30, 0.1 * factor) for factor in (1.0, 1.1, 0.9))
    >>> others = [Candidate(name, "edge", ("edge",), rounds, inputs=30) for name in "abc"]
    >>> one = Candidate("identity", "cloud", ("cloud",), rounds[:1], inputs=30)
    >>> estimate = presumed([*others, one], 90)[one]
    >>> round(estimate.upper(0.95) - estimate.value, 2), presumed([one], 90)
    (0.21, {})
    """
    if not candidates:
        return {}
    key = percentile, tuple(map(ref, candidates))
    places = _presumed_estimates.get(candidates[0], key, lambda: _by_place(candidates, percentile))
    return {candidates[place]: estimate for place, estimate in places.items()}


def _by_place(candidates: Sequence[Candidate], percentile: float) -> Mapping[int, LogEstimate]:
    intervals = [interval(member, percentile) for member in candidates]
    # A promise knows the inputs' variance apart from the rounds'; here the rounds must show both.
    estimates = [own.jackknife or own.estimate for own in intervals]
    several = [dict(own.by_round) for own in estimates if own is not None and own.by_round]
    thin = [place for place, member in enumerate(candidates) if _is_thin(member, intervals[place])]
    variances = strategy_variances(several)
    usual = variances.presumed
    if not thin or not usual.df:
        return {}
    return {
        place: LogEstimate(
            math.log(intervals[place].estimate_s),
            variance_rounds=usual.variance / intervals[place].rounds,
            variance_inputs=0.0,
            df_rounds=usual.df,
            df_inputs=1.0,
            variance_shared=variances.shared / intervals[place].rounds,
            df_shared=variances.shared_df,
        )
        for place in thin
    }


def _is_thin(candidate: Candidate, own: PercentileInterval) -> bool:
    # Where rounds send the same inputs, the variance across rounds says nothing of too few of these.
    if own.refusal is None or candidate.predicted is not None:
        return False
    return candidate.design is not None or own.refusal.kind is RefusalKind.ONE_ROUND
