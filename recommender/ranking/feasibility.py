"""Which budgets a candidate misses, which it is proven to meet, and what is open."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.feasibility import (
    BudgetCheck,
    Feasibility,
    confidence_below,
    drop_within,
    floor_from_drop,
    hits_at_least,
    latency_check,
    latency_confidence,
    step_down,
)
from catalog.statistics.intervals import IntervalRefusal, PercentileInterval, RefusalKind
from catalog.statistics.looks import with_share
from catalog.statistics.posterior import percentile_correlation
from catalog.statistics.variances import moderated
from recommender.ranking.candidates import AccuracyMeasurement, Candidate, CandidateCache, Estimate, interval
from recommender.ranking.model import Budgets, Gap, LatencyMiss, NearMiss, Prospect, Status, UndecidedCandidate, Unit
from recommender.ranking.prospects import Chances, chances, drop_of, labelled_accuracy, loss, status_of
from recommender.ranking.thin_evidence import presumed

# What makes one near miss nearer than another: a percentage point of accuracy weighs as much as 10 % of latency.
_LATENCY_SHARE_PER_POINT = 0.1
# Accuracies are counts over some thousand items: a drop of "exactly 1.0" must not miss a budget of 1.0 by 1e-14.
_ACCURACY_SLACK_PP = 1e-9
# Nor must the mean of three rounds of 0.1 s, which is 0.10000000000000002 s, miss a budget of 0.1 s.
_LATENCY_SLACK = 1e-12

# One result per candidate of a group, in its order; kept with the group's first candidate.
_steadied_intervals: CandidateCache[tuple[PercentileInterval, ...]] = CandidateCache()
_accuracy_shares: CandidateCache[tuple[int, ...]] = CandidateCache()


def judge_all(estimates: Sequence[Estimate], budgets: Budgets) -> list[Prospect | NearMiss]:
    """Decide where each candidate belongs, and how sure that is.

    Parameters
    ----------
    estimates : sequence of Estimate
        All candidates of the question: what is promised of them holds together.
    budgets : Budgets

    Returns
    -------
    list of Prospect or NearMiss
        In the order given.

    Notes
    -----
    Bounds of latencies take the variance across rounds steadied by that of the other candidates (`moderated`); the
    intervals shown with an estimate are the candidate's own. The surest first (`step_down`), among those that count
    (`family`). Near misses that count, and candidates whose images can promise nothing, are never among the surest.

    Candidates that share one accuracy (an operator on several tiers) are wrong about it together or not at all: of n
    that share it, k remaining, it may err at n shares of k where each latency errs at one. Wrong assertions are then at
    most as many shares as there are wrong candidates, all of which remain at the first wrong one.
    """
    candidates = [estimate.candidate for estimate in estimates]
    bounds, likely = _bounds(candidates, budgets), _likely(candidates, budgets)
    shared, counted = sharing(candidates), _counted(candidates, budgets, lambda: likely)
    # What misses says how surely, by the others' rounds where its own do not.
    stated = _stated(candidates, likely, budgets)
    misses = [_near_miss(estimate, own, budgets) for estimate, own in zip(estimates, stated, strict=True)]
    gaps = [None if miss else _missing(estimate, budgets) for estimate, miss in zip(estimates, misses, strict=True)]
    open_rows = [row for row in counted.rows if not misses[row] and not gaps[row]]
    checks = {row: _checks(candidates[row], budgets, bounds[row], shared[row], counted) for row in open_rows}
    judged = {
        row: _judged(estimates[row], budgets, likely[row], bounds[row], *step)
        for row, step in _stepped(checks, counted, budgets).items()
    }
    return [
        miss or judged.get(row) or _undecided(estimate, budgets, likely[row], gap)
        for row, (estimate, miss, gap) in enumerate(zip(estimates, misses, gaps, strict=True))
    ]


def _stated(candidates: Sequence[Candidate], likely: Sequence[Chances], budgets: Budgets) -> list[Chances]:
    """Replace the chances that too few rounds leave open by those that are usual (`presumed`)."""
    if all(own.latency is not None for own in likely):
        return list(likely)
    usual = [_presumed_intervals(candidates, budget.percentile) for budget in budgets.latency]
    return [
        chances(candidate, budgets, [intervals[candidate] for intervals in usual])
        if own.latency is None and all(candidate in intervals for intervals in usual)
        else own
        for candidate, own in zip(candidates, likely, strict=True)
    ]


def _presumed_intervals(candidates: Sequence[Candidate], percentile: float) -> Mapping[Candidate, PercentileInterval]:
    return {
        candidate: replace(interval(candidate, percentile), estimate=estimate)
        for candidate, estimate in presumed(candidates, percentile).items()
    }


def _stepped(
    checks: "Mapping[int, _Checks]", counted: "Family", budgets: Budgets
) -> "Mapping[int, tuple[_Checks, int, float, float]]":
    """Step down over all that count: the checks, the tests, the level and the joint confidence of each at its step."""

    # What counts and misses stays, with confidence 0: the levels have paid for leaving out what `family` does.
    def confidence(place: int, tests: int) -> float:
        row = counted.rows[place]
        return checks[row].confidence(tests) if row in checks else 0.0

    sure = [confidence(place, len(counted.rows)) for place in range(len(counted.rows))]
    steps = step_down(sure, confidence_level=budgets.confidence, among=confidence)
    by_step = zip(counted.rows, steps.remaining.tolist(), steps.levels.tolist(), steps.joint.tolist(), strict=True)
    return {row: (checks[row], tests, level, joint) for row, tests, level, joint in by_step if row in checks}


def _bounds(candidates: Sequence[Candidate], budgets: Budgets) -> list[list[PercentileInterval]]:
    """Return for each candidate its percentile for each latency budget, as a promise takes it."""
    steady = [steadied_rows(candidates, budget.percentile) for budget in budgets.latency]
    return [[intervals[row] for intervals in steady] for row in range(len(candidates))]


# A latency that misses its budgets with more than this probability does not count.
_COUNTED = 0.9


@dataclass(frozen=True)
class Family:
    """The candidates that a joint promise pays for, and what of its error is left for their latencies.

    Attributes
    ----------
    rows : tuple of int
        Their places among the candidates.
    latency_share : float
    """

    rows: tuple[int, ...]
    latency_share: float


_families: CandidateCache[Family] = CandidateCache()


def family(candidates: Sequence[Candidate], budgets: Budgets) -> Family:
    """Leave out what no bound can be given for, and latencies that are far beyond their budgets.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of the question.
    budgets : Budgets

    Returns
    -------
    Family

    Notes
    -----
    Tests whose p-value is above a constant t may be left out if the p-values of the others are divided by t: given that
    it is below t, a p-value is below x with a chance of at most x / t, whatever the truth is. Most strategies are far
    from any one budget, so that few are left to pay for. The posterior is the p-value of the latency here. What
    accuracies say leaves nothing out.

    References
    ----------
    Q. Zhao, D. S. Small and W. Su, Multiple testing when many p-values are uniformly conservative, Journal of the
    American Statistical Association 114 (2019).
    """
    return _counted(candidates, budgets, lambda: _likely(candidates, budgets))


def _counted(candidates: Sequence[Candidate], budgets: Budgets, likely: Callable[[], Sequence[Chances]]) -> Family:
    if not candidates:
        return Family((), 1.0)
    key = budgets, tuple(map(ref, candidates))
    return _families.get(candidates[0], key, lambda: _family(likely(), budgets))


def _likely(candidates: Sequence[Candidate], budgets: Budgets) -> list[Chances]:
    correlation = _correlation(candidates, budgets)
    own = [_unguarded(candidates, budget.percentile) for budget in budgets.latency]
    return [
        chances(candidate, budgets, [intervals[row] for intervals in own], correlation)
        for row, candidate in enumerate(candidates)
    ]


_unguarded_intervals: CandidateCache[tuple[PercentileInterval, ...]] = CandidateCache()


def _unguarded(candidates: Sequence[Candidate], percentile: float) -> tuple[PercentileInterval, ...]:
    """Return each candidate's percentile as a posterior takes it.

    Where rounds draw their inputs, a promise takes the variance of the inputs from the samples near the percentile,
    with some caution. That guards against three rounds that agree by luck; a posterior takes the jackknife's, with two
    degrees of freedom, and says how probable such luck is (docs/statistics.md, "How probable").
    """
    if not candidates:
        return ()
    key = percentile, tuple(map(ref, candidates))
    return _unguarded_intervals.get(candidates[0], key, lambda: _steadied(candidates, percentile, guarded=False))


_correlations: CandidateCache[NDArray[np.float64]] = CandidateCache()


def _correlation(candidates: Sequence[Candidate], budgets: Budgets) -> NDArray[np.float64] | None:
    """Return how the errors of the asked percentiles are correlated, where there are several."""
    percentiles = tuple(budget.percentile for budget in budgets.latency)
    if len(percentiles) < 2 or not candidates:
        return None
    key = percentiles, tuple(map(ref, candidates))
    return _correlations.get(candidates[0], key, lambda: percentile_correlation(_by_round(candidates, percentiles)))


def _by_round(candidates: Sequence[Candidate], percentiles: Sequence[float]) -> list[NDArray[np.float64]]:
    """Return the log percentiles of each round of every candidate that has several rounds."""
    rounds = [[interval(candidate, percentile).by_round_s for percentile in percentiles] for candidate in candidates]
    several = [np.log(np.array(by_percentile)).T for by_percentile in rounds if len(by_percentile[0]) > 1]
    return several or [np.zeros((2, len(percentiles)))]


def _family(likely: Sequence[Chances], budgets: Budgets) -> Family:
    bounded = [row for row, own in enumerate(likely) if own.together is not None]
    # A single candidate needs no correction for many.
    if not budgets.latency or len(bounded) < 2:
        return Family(tuple(bounded), 1.0)
    return Family(tuple(row for row in bounded if (likely[row].latency or 0.0) >= 1 - _COUNTED), _COUNTED)


@dataclass(frozen=True, eq=False)
class _Checks:
    """Of one candidate: its percentile for each budget of latency, and the checks of those of accuracy.

    Latencies are judged as those of one of so many tests, for which `share` of the error is left: by `family`, and by
    the looks of a race (`catalog.statistics.looks`). `sharing` candidates share the accuracy.
    """

    budgets: Budgets
    latency: Sequence[PercentileInterval]
    accuracy: tuple[BudgetCheck, ...]
    sharing: int
    share: float
    counted: int
    confidences: dict[int, list[float]] = field(default_factory=dict, repr=False)

    def confidence(self, tests: int) -> float:
        """Return the confidence for stepping down; an accuracy that alone does not hold puts it below any level."""
        of_latency = min(self._of_latency(self._effective(tests)), default=1.0)
        of_latency = max(0.0, 1 - (1 - of_latency) / self.share)
        of_accuracy = self.accuracy_confidence
        if of_accuracy >= self.budgets.confidence:
            # Judged once for all that share it, at level ** sharing (`at`); the root puts it on the scale of one test.
            of_accuracy **= 1 / self.sharing
        return min(of_latency, of_accuracy)

    @cached_property
    def accuracy_confidence(self) -> float:
        """The largest level at which all budgets of accuracy hold, each by itself."""
        return min((check.confidence for check in self.accuracy), default=1.0)

    def _of_latency(self, tests: int) -> list[float]:
        # Kept: stepping down asks for the same number as what is said afterwards.
        confidences = self.confidences.get(tests)
        if confidences is None:
            confidences = self.confidences[tests] = [
                latency_confidence(interval, budget.max_s, tests=tests)
                for interval, budget in zip(self.latency, self.budgets.latency, strict=True)
            ]
        return confidences

    def _effective(self, tests: int) -> int:
        """Return the number to judge by: it matters only where strategies share variance, which errs once for all."""
        return tests if self._shares_variance else self.counted

    @cached_property
    def _shares_variance(self) -> bool:
        return any(own.estimate is not None and own.estimate.variance_shared > 0 for own in self.latency)

    def at(self, level: float, tests: int) -> tuple[BudgetCheck, ...]:
        """Judge at the level of a step: once for all that share an accuracy, and never below the question's level."""
        of_latency = with_share(level, self.share)
        of_accuracy = max(level**self.sharing, self.budgets.confidence)
        tests = self._effective(tests)
        confidences = self._of_latency(tests)
        return (
            *(
                latency_check(interval, budget.max_s, own, confidence_level=of_latency, tests=tests)
                for interval, budget, own in zip(self.latency, self.budgets.latency, confidences, strict=True)
            ),
            *(check.at(of_accuracy) for check in self.accuracy),
        )


def _judged(
    estimate: Estimate,
    budgets: Budgets,
    likely: Chances,
    latency: Sequence[PercentileInterval],
    own: _Checks,
    tests: int,
    level: float,
    joint: float,
) -> Prospect:
    """Say what may be expected of a candidate whose budgets were all checked."""
    checks = own.at(level, tests)
    # An accuracy must hold by itself at whatever level is reported (docs/statistics.md, "Budgets").
    joint = min(joint, own.accuracy_confidence)
    missed = next((place for place, check in enumerate(checks) if not check.holds), None)
    estimate = estimate.judged(Feasibility(feasible=missed is None, joint_confidence=joint, checks=checks))
    gap = _by_model(estimate, budgets, latency) if missed is None else _unproven(estimate, budgets, missed)
    chance = likely.together
    status = Status.PROVEN if gap is None else status_of(chance)
    return Prospect(estimate, status, chance, loss(estimate, budgets, chance), gap, joint)


def _by_model(estimate: Estimate, budgets: Budgets, latency: Sequence[PercentileInterval]) -> UndecidedCandidate | None:
    """Return the first percentile whose bound holds and rests on a model."""
    for percentile_interval, budget in zip(latency, budgets.latency, strict=True):
        if (reason := percentile_interval.by_model) is not None:
            return UndecidedCandidate(estimate, Gap.BY_MODEL, budget.percentile, reason=reason)
    return None


def _undecided(estimate: Estimate, budgets: Budgets, likely: Chances, gap: UndecidedCandidate | None) -> Prospect:
    """Say what may be expected of a candidate that nothing can be promised of."""
    # Without a budget there is nothing to break.
    chance = likely.together
    status = status_of(chance) if budgets.any_set else Status.PROVEN
    return Prospect(estimate, status, chance, loss(estimate, budgets, chance), gap, 0.0 if budgets.any_set else 1.0)


def _near_miss(estimate: Estimate, likely: Chances, budgets: Budgets) -> NearMiss | None:
    late = tuple(
        LatencyMiss(budget, got_s)
        for budget in budgets.latency
        if (got_s := _at(estimate, budget.percentile)) > budget.max_s * (1 + _LATENCY_SLACK)
    )
    accuracy = labelled_accuracy(estimate.candidate)
    short_pp = _over(budgets.min_accuracy_pct, accuracy.accuracy_pct if accuracy else None)
    drop_pp = _over(accuracy.drop_pp if accuracy else None, budgets.max_accuracy_drop_pp)
    if not late and short_pp is None and drop_pp is None:
        return None
    # On the log scale, so that twice the budget is as far for 5 ms as for 5 s.
    shares = [math.log(miss.got_s) - math.log(miss.budget.max_s) for miss in late]
    shares += [points * _LATENCY_SHARE_PER_POINT for points in (short_pp, drop_pp) if points is not None]
    return NearMiss(
        estimate,
        late,
        short_pp,
        drop_pp,
        distance=sum(shares),
        probability=likely.together,
    )


def in_spite(near_miss: NearMiss, budgets: Budgets) -> Prospect:
    """Say what may be expected of a candidate whose estimates miss a budget: that it keeps them nevertheless."""
    estimate, chance = near_miss.estimate, near_miss.probability
    gap = UndecidedCandidate(estimate, Gap.UNPROVEN, miss=near_miss)
    return Prospect(estimate, status_of(chance), chance, loss(estimate, budgets, chance), gap, 0.0)


def miss_confidence(candidate: Candidate, budgets: Budgets, *, among: Sequence[Candidate]) -> float:
    """Return the largest level at which the evidence shows that some budget is broken.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets
    among : sequence of Candidate
        All of the question, this one included.

    Returns
    -------
    float
    """
    latency = [steadied(among, budget.percentile)[candidate] for budget in budgets.latency]
    # Looked up only where it is needed: among many strategies each look-up takes a while.
    if any(own.estimate is None for own in latency):
        usual = (_presumed_intervals(among, budget.percentile) for budget in budgets.latency)
        latency = [intervals.get(candidate, own) for intervals, own in zip(usual, latency, strict=True)]
    accuracy, drop = labelled_accuracy(candidate), drop_of(candidate)
    broken = [
        0.0 if interval.estimate is None else 1 - interval.estimate.confidence_below(math.log(budget.max_s))
        for interval, budget in zip(latency, budgets.latency, strict=True)
    ]
    if budgets.min_accuracy_pct is not None:
        broken.append(0.0 if accuracy is None else below_floor(accuracy, budgets.min_accuracy_pct))
    if budgets.max_accuracy_drop_pp is not None:
        broken.append(0.0 if drop is None else drop.confidence_above(budgets.max_accuracy_drop_pp))
    # Any of them would do, and the surest was found by looking.
    return max(broken, default=0.0) ** len(broken)


def _over(value: float | None, limit: float | None) -> float | None:
    """Return by how much a value exceeds a limit; None when it does not, or when either is unknown."""
    if value is None or limit is None or value - limit <= _ACCURACY_SLACK_PP:
        return None
    return value - limit


def _missing(estimate: Estimate, budgets: Budgets) -> UndecidedCandidate | None:
    """Return what has to be measured before any bound can be given."""
    accuracy, floor = labelled_accuracy(estimate.candidate), budgets.min_accuracy_pct
    without_drop = budgets.max_accuracy_drop_pp is not None and drop_of(estimate.candidate) is None
    if accuracy is None and (floor is not None or without_drop):
        return UndecidedCandidate(estimate, Gap.ACCURACY_MISSING)
    if accuracy is not None and without_drop:
        return UndecidedCandidate(estimate, Gap.DROP_MISSING if accuracy.drop_pp is None else Gap.ITEMS_MISSING)
    if accuracy is not None and floor is not None and accuracy.hits is None and accuracy.short is None:
        return UndecidedCandidate(estimate, Gap.ITEMS_MISSING)
    if accuracy is not None and (refused := _refusal(accuracy, budgets)) is not None:
        return UndecidedCandidate(estimate, Gap.TOO_FEW_IMAGES, refusal=refused)
    # The highest percentile first: it needs the most inputs, and with those the others have enough.
    for budget in sorted(budgets.latency, key=lambda budget: -budget.percentile):
        refusal = interval(estimate.candidate, budget.percentile).refusal
        if refusal is not None:
            kind = Gap.ONE_ROUND if refusal.kind is RefusalKind.ONE_ROUND else Gap.TOO_THIN
            return UndecidedCandidate(estimate, kind, budget.percentile, refusal.inputs_needed)
    return None


def _refusal(accuracy: AccuracyMeasurement, budgets: Budgets) -> IntervalRefusal | None:
    """Return why the images give no bound for an accuracy budget of the question."""
    drops = (
        accuracy.short if budgets.min_accuracy_pct is not None and accuracy.hits is None else None,
        accuracy.drop if budgets.max_accuracy_drop_pp is not None else None,
    )
    return next((drop.refusal for drop in drops if drop is not None and drop.refusal is not None), None)


def steadied(candidates: Sequence[Candidate], percentile: float) -> Mapping[Candidate, PercentileInterval]:
    """Return each candidate's percentile as a promise takes it: its variance moderated by those of all others."""
    return dict(zip(candidates, steadied_rows(candidates, percentile), strict=True))


def steadied_rows(candidates: Sequence[Candidate], percentile: float) -> tuple[PercentileInterval, ...]:
    """Return what `steadied` does in the order of the candidates, for callers that know their place."""
    if not candidates:
        return ()
    # Weak references, so that the key does not keep candidates of an older snapshot alive.
    key = percentile, tuple(map(ref, candidates))
    return _steadied_intervals.get(candidates[0], key, lambda: _steadied(candidates, percentile))


def sharing(candidates: Sequence[Candidate]) -> tuple[int, ...]:
    """Count the candidates that share the accuracy of each: the same items with the same outcomes."""
    if not candidates:
        return ()
    return _accuracy_shares.get(candidates[0], tuple(map(ref, candidates)), lambda: _sharing(candidates))


def _sharing(candidates: Sequence[Candidate]) -> tuple[int, ...]:
    evidence = [_accuracy_evidence(candidate) for candidate in candidates]
    count = Counter(evidence)
    return tuple(count[item] for item in evidence)


def _accuracy_evidence(candidate: Candidate) -> int:
    accuracy = candidate.accuracy
    arrays = (accuracy.drop, accuracy.short, accuracy.hits) if accuracy is not None else ()
    # By identity: loading gives equal accuracies one object. A candidate without evidence shares with none.
    return id(next((array for array in arrays if array is not None), candidate))


def _steadied(
    candidates: Sequence[Candidate], percentile: float, *, guarded: bool = True
) -> tuple[PercentileInterval, ...]:
    intervals = [interval(candidate, percentile) for candidate in candidates]
    own = [entry.estimate if guarded else entry.jackknife or entry.estimate for entry in intervals]
    # Candidates without an interval neither give nor take variance, but keep their place.
    estimates = iter(moderated([estimate for estimate in own if estimate is not None]))
    return tuple(
        replace(entry, estimate=None if estimate is None else next(estimates))
        for entry, estimate in zip(intervals, own, strict=True)
    )


def _checks(
    candidate: Candidate, budgets: Budgets, latency: Sequence[PercentileInterval], shared: int, counted: Family
) -> _Checks:
    """Check the budgets of accuracy, and prepare those of latency; call it when nothing is missing."""
    checks = [check for check in accuracy_checks(candidate, budgets) if check is not None]
    share = counted.latency_share * candidate.error_share
    return _Checks(budgets, latency, tuple(checks), shared, share, len(counted.rows))


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
        checks.append(floor_within(accuracy, floor).at(level) if accuracy is not None and has_items else None)
    if most is not None:
        drop = drop_of(candidate)
        checks.append(None if drop is None else drop_within(drop, most).at(level))
    return tuple(checks)


def below_floor(accuracy: AccuracyMeasurement, floor: float) -> float:
    """Return the largest level at which an accuracy is shown to be below a floor."""
    if accuracy.hits is not None:
        return confidence_below(floor / 100, int(accuracy.hits.sum()), accuracy.hits.size)
    return 0.0 if accuracy.short is None else accuracy.short.confidence_above(100 - floor)


def floor_within(accuracy: AccuracyMeasurement, floor: float) -> BudgetCheck:
    """Check a floor by what is known of the accuracy: hits, or the drop against a flawless reference."""
    if accuracy.hits is not None:
        return hits_at_least(accuracy.hits, floor)
    assert accuracy.short is not None
    return floor_from_drop(accuracy.short, floor)


def _unproven(estimate: Estimate, budgets: Budgets, missed: int) -> UndecidedCandidate:
    """Return the first budget whose bound is beyond it, with its percentile when it is one of latency."""
    assert estimate.feasibility is not None
    check, percentile, unit = estimate.feasibility.checks[missed], None, _unit(budgets, missed)
    if missed < len(budgets.latency):
        percentile = budgets.latency[missed].percentile
    return UndecidedCandidate(estimate, Gap.UNPROVEN, percentile, check=check, unit=unit)


def _unit(budgets: Budgets, place: int) -> Unit:
    """Return the unit of a check by its place: latencies come first, then a floor, then a drop."""
    if place < len(budgets.latency):
        return "s"
    return "%" if budgets.min_accuracy_pct is not None and place == len(budgets.latency) else "pp"


def _at(estimate: Estimate, percentile: float) -> float:
    return interval(estimate.candidate, percentile).estimate_s
