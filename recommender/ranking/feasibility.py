"""Which budgets a candidate misses, which it is proven to meet, and what is open; and each beside what is known."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, NamedTuple

from catalog.statistics.feasibility import BudgetCheck, StepDown, latency_check, upper_bound, with_share
from catalog.statistics.intervals import PercentileInterval
from catalog.statistics.log_estimate import LogEstimate, confidences_below
from catalog.statistics.outcomes import COUNTED, sidak
from catalog.statistics.posterior import latency_probabilities
from recommender.ranking.candidates import Candidate, CandidateCache, Estimate
from recommender.ranking.model import (
    Budgets,
    Gap,
    LatencyMiss,
    NearMiss,
    Prospect,
    Status,
    UndecidedCandidate,
    Unit,
)
from recommender.ranking.prospects import (
    LATENCY_SLACK,
    AccuracyColumns,
    AccuracyTests,
    CandidateTable,
    MissingEvidence,
    accuracy_checks,
    below_floor,
    drop_of,
    labelled_accuracy,
    latency_chance,
    log_limits,
    risk,
    status_of,
    table_of,
)

# What makes one near miss nearer than another: a percentage point of accuracy weighs as much as 10 % of latency.
_LATENCY_SHARE_PER_POINT = 0.1
# A bound that is the limit has the level as its confidence, to so many digits (`BudgetCheck.holds`).
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Family:
    """The candidates that a joint promise pays for, and what of its error is left for them.

    Tests whose p-value is above a constant t may be left out if the p-values of the others are divided by t: given that
    it is below t, a p-value is below x with a chance of at most x / t, whatever the truth is. Most strategies are far
    from any one budget, so that few are left to pay for. The posteriors of the latency and of the accuracy are the
    p-values here. A question of accuracy alone leaves nothing out.

    Attributes
    ----------
    rows : tuple of int
        Their places among the candidates.
    share : float
    sharing : tuple of int
        For every candidate, how many of these share its accuracy; at least 1.
    error_shares : tuple of float
        For every candidate, what of the error is left for its latency: by the looks of a race as well.

    References
    ----------
    Q. Zhao, D. S. Small and W. Su, Multiple testing when many p-values are uniformly conservative, Journal of the
    American Statistical Association 114 (2019).
    """

    rows: tuple[int, ...]
    share: float
    sharing: tuple[int, ...]
    error_shares: tuple[float, ...]

    @classmethod
    def of(cls, table: CandidateTable, rows: tuple[int, ...], share: float) -> "Family":
        """Return the family of these candidates."""
        count = Counter(table.shared_accuracy[row] for row in rows)
        # One that does not count is asked as if it did.
        sharing = tuple(max(count[accuracy], 1) for accuracy in table.shared_accuracy)
        return cls(rows, share, sharing, tuple(share * own for own in table.error_share))

    @cached_property
    def counted(self) -> frozenset[int]:
        """The same as `rows`, to be looked up."""
        return frozenset(self.rows)

    def accuracy_level(self, row: int, level: float, confidence: float) -> float:
        """Return the level of an accuracy at a step: once for all that share it, not below the asked confidence."""
        return with_share(max(level ** self.sharing[row], confidence), self.share)


class _Step(NamedTuple):
    """Where stepping down came to a candidate: among so many tests, at this level."""

    tests: int
    level: float


class Judgement:
    """What the budgets make of every candidate, as numbers; it refers to no candidate.

    Bounds of latencies take the variance across rounds steadied by that of the other candidates (`moderated`); the
    intervals shown with an estimate are the candidate's own. The surest first (`StepDown`), among those that count
    (`family`). Near misses that count, and candidates whose images can promise nothing, are never among the surest.

    A candidate that breaks a budget passes only if that budget's own test errs, so the budgets of one candidate need no
    adjustment among each other (intersection-union test).

    Candidates that share one accuracy (an operator on several tiers) are wrong about it together or not at all: of n
    that count and share it, k remaining, it may err at n shares of k where each latency errs at one. Wrong assertions
    are then at most as many shares as there are wrong candidates, all of which remain at the first wrong one.

    Attributes
    ----------
    budgets : Budgets
    table : CandidateTable
    missed : sequence of bool
        Whether an estimate misses a budget.
    chance : sequence of float or None
        The posterior that all budgets hold.
    gap : sequence of Gap or None
        What a promise lacks; None for what is proven, or misses a budget.

    References
    ----------
    R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24 (1982).
    """

    def __init__(self, table: CandidateTable, budgets: Budgets) -> None:
        self.budgets, self.table = budgets, table
        self._rows = range(table.count)
        self._latency = [table.latency(budget.percentile) for budget in budgets.latency]
        self._accuracy: AccuracyColumns = table.accuracy(budgets)
        self._limits = log_limits(budgets)
        self.missed = self._misses()
        self._missing = table.missing(budgets)
        of_latency = self._latency_chances()
        self.family = self._counted(of_latency)
        self._tests = _Tests(self)
        # Those that count and may be promised, with their places among the tests.
        self._tested = {
            row: place
            for place, row in enumerate(self.family.rows)
            if not self.missed[row] and self._missing[row] is None
        }
        self._steps = self._stepped() if self._tested else None
        # The first check that does not hold, of those for which one does not.
        self._unproven = {} if self._steps is None else self._first_missed(self._steps)
        self.gap = self._gaps()
        stated = self._stated(of_latency)
        self.chance = [_together(*pair) for pair in zip(stated, self._accuracy.chance, strict=True)]

    @cached_property
    def loss(self) -> Sequence[float]:
        """What choosing each candidate would lose."""
        objective = self.table.losses(self.budgets.objective, self.budgets.percentile)
        return [own + risk(chance, self.budgets) for own, chance in zip(objective, self.chance, strict=True)]

    @cached_property
    def status(self) -> Sequence[Status]:
        """How sure it is that each candidate keeps its budgets."""
        # Without a budget there is nothing to break.
        unbounded = not self.budgets.any_set
        proven = [
            gap is None and (row in self._tested or (unbounded and not self.missed[row]))
            for row, gap in enumerate(self.gap)
        ]
        return [Status.PROVEN if own else status_of(chance) for own, chance in zip(proven, self.chance, strict=True)]

    @property
    def within(self) -> list[int]:
        """The candidates whose estimates are within the budgets, or not known."""
        return [row for row in self._rows if not self.missed[row]]

    @property
    def proven(self) -> list[int]:
        """The candidates that are proven to keep the budgets."""
        return [row for row in self.within if self.status[row] is Status.PROVEN]

    @property
    def places(self) -> list[Prospect | NearMiss]:
        """The place of every candidate."""
        estimates = self.table.latency(self.budgets.percentile).estimates
        return [
            self._placed(row, Estimate(candidate, *estimates[row]))
            for row, candidate in enumerate(self.table.candidates)
        ]

    def placed(self, row: int) -> Prospect | NearMiss:
        """Return the place of a candidate."""
        return self._placed(row, self.table.estimate(row, self.budgets.percentile))

    def _placed(self, row: int, estimate: Estimate) -> Prospect | NearMiss:
        """Return the place of a candidate, with its checks where it is not proven."""
        if self.missed[row]:
            return self._near_miss(row, estimate)
        chance, loss, status, lack = self.chance[row], self.loss[row], self.status[row], self.gap[row]
        if row not in self._tested:
            missing = self._missing[row]
            gap = None if missing is None else _undecided(estimate, missing)
            return Prospect(estimate, status, chance, loss, gap, _no_confidence if self.budgets.any_set else _certainty)
        joint = partial(self._joint, row)
        if lack is None:
            return Prospect(estimate, status, chance, loss, None, joint)
        step = self._step(row)
        judged = estimate.judged(self._tests.checks(row, step.level, step.tests))
        if lack is Gap.UNPROVEN:
            return Prospect(judged, status, chance, loss, _unproven(judged, self.budgets, self._unproven[row]), joint)
        return Prospect(judged, status, chance, loss, self._by_model(row, judged), joint)

    def _step(self, row: int) -> _Step:
        """Return where stepping down came to a candidate that was tested."""
        assert self._steps is not None, "what was tested has a step"
        place = self._tested[row]
        return _Step(self._steps.remaining_of(place), self._steps.level_of(place))

    def _joint(self, row: int) -> float:
        assert self._steps is not None, "what was tested has a step"
        # An accuracy must hold by itself at whatever level is reported (docs/statistics.md, "Budgets").
        return min(self._steps.joint_of(self._tested[row]), self._tests.accuracy_confidence(row))

    def miss_confidence(self, row: int) -> float:
        """Return the largest level at which the evidence shows that a candidate breaks some budget."""
        intervals = [columns.bounded[row] for columns in self._latency]
        if any(own.estimate is None for own in intervals):
            usual = (self.table.presumed(budget.percentile)[row] for budget in self.budgets.latency)
            intervals = [presumed or own for presumed, own in zip(usual, intervals, strict=True)]
        return _miss_confidence(self.table.candidate(row), [own.estimate for own in intervals], self.budgets)

    def _misses(self) -> list[bool]:
        points = zip(self._accuracy.short_pp, self._accuracy.over_pp, strict=True)
        missed = [short is not None or over is not None for short, over in points]
        for columns, budget in zip(self._latency, self.budgets.latency, strict=True):
            limit_s = budget.max_s * (1 + LATENCY_SLACK)
            missed = [own or got_s > limit_s for own, got_s in zip(missed, columns.estimate_s, strict=True)]
        return missed

    def _latency_chances(self) -> list[float | None]:
        # Most questions have one budget of latency.
        if len(self._latency) == 1:
            [columns], [limit] = self._latency, self._limits
            return latency_probabilities(columns.posterior, limit)
        percentiles = tuple(budget.percentile for budget in self.budgets.latency)
        correlation = self.table.correlation(percentiles) if len(percentiles) > 1 else None
        return [
            latency_chance([columns.posterior[row] for columns in self._latency], self._limits, correlation)
            for row in self._rows
        ]

    def _counted(self, of_latency: Sequence[float | None]) -> Family:
        """Leave out what no bound can be given for, and what is far beyond a budget."""
        pairs = zip(of_latency, self._accuracy.chance, strict=True)
        least = [None if own is None or other is None else min(own, other) for own, other in pairs]
        rows, share = tuple([row for row, chance in enumerate(least) if chance is not None]), 1.0
        # A single candidate needs no correction for many.
        if self._latency and len(rows) > 1:
            share = COUNTED
            rows = tuple([row for row, chance in enumerate(least) if chance is not None and chance >= 1 - COUNTED])
        return self.table.of_rows(("family", rows, share), lambda: Family.of(self.table, rows, share))

    def _stated(self, of_latency: Sequence[float | None]) -> Sequence[float | None]:
        """Replace the chances of near misses that too few rounds leave open by those that are usual (`presumed`).

        What misses says how surely, by the others' rounds where its own do not.
        """
        thin = [row for row in self._rows if of_latency[row] is None and self.missed[row]]
        if not thin:
            return of_latency
        stated = list(of_latency)
        usual = [self.table.presumed(budget.percentile) for budget in self.budgets.latency]
        for row in thin:
            presumed = [interval.estimate for intervals in usual if (interval := intervals[row]) is not None]
            if len(presumed) == len(usual):
                stated[row] = latency_chance(presumed, self._limits)
        return stated

    def _stepped(self) -> StepDown:
        """Step down over all that count."""
        rows, tests, tested = self.family.rows, self._tests, list(self._tested)
        # What counts and misses stays, with confidence 0: the levels have paid for leaving out what `family` does.
        confidences = [0.0] * len(rows)
        for row, confidence in zip(tested, tests.confidences(tested, len(rows)), strict=True):
            confidences[self._tested[row]] = confidence

        def among(place: int, count: int) -> float:
            row = rows[place]
            return tests.confidences([row], count)[0] if row in self._tested else 0.0

        # The number of tests matters only where strategies share variance, which errs once for all.
        return StepDown(confidences, self.budgets.confidence, among if any(tests.shares_variance) else None)

    def _first_missed(self, steps: StepDown) -> Mapping[int, int]:
        """Return the place of the first check that does not hold, by row, of those that are not proven."""
        # All of them are judged at the step that failed first.
        failed = [row for row, place in self._tested.items() if not steps.holds(place)]
        if not failed:
            return {}
        missed = self._tests.missed(failed, self._step(failed[0]))
        return {row: place for row, place in zip(failed, missed, strict=True) if place is not None}

    def _gaps(self) -> Sequence[Gap | None]:
        by_model = [columns.by_model for columns in self._latency if any(columns.by_model)]
        gaps: list[Gap | None] = []
        for row, (missed, missing) in enumerate(zip(self.missed, self._missing, strict=True)):
            gap = None
            if not missed and missing is not None:
                gap = missing.gap
            elif row in self._unproven:
                gap = Gap.UNPROVEN
            elif by_model and row in self._tested and any(column[row] for column in by_model):
                gap = Gap.BY_MODEL
            gaps.append(gap)
        return gaps

    def _by_model(self, row: int, estimate: Estimate) -> UndecidedCandidate | None:
        """Return the first percentile whose bound holds and rests on a model."""
        for columns, budget in zip(self._latency, self.budgets.latency, strict=True):
            if (reason := columns.bounded[row].by_model) is not None:
                return UndecidedCandidate(estimate, Gap.BY_MODEL, budget.percentile, reason=reason)
        return None

    def _near_miss(self, row: int, estimate: Estimate) -> NearMiss:
        late = tuple(
            [
                LatencyMiss(budget, got_s)
                for columns, budget in zip(self._latency, self.budgets.latency, strict=True)
                if (got_s := columns.estimate_s[row]) > budget.max_s * (1 + LATENCY_SLACK)
            ]
        )
        short_pp, drop_pp = self._accuracy.short_pp[row], self._accuracy.over_pp[row]
        # On the log scale, so that twice the budget is as far for 5 ms as for 5 s.
        shares = [math.log(miss.got_s) - math.log(miss.budget.max_s) for miss in late]
        shares += [points * _LATENCY_SHARE_PER_POINT for points in (short_pp, drop_pp) if points is not None]
        return NearMiss(estimate, late, short_pp, drop_pp, distance=sum(shares), probability=self.chance[row])


class _Tests:
    """The checks of the budgets by candidate and number of tests, each computed once.

    All are judged as those of one of so many tests, for which a share of the error is left: by `family`, and of
    latencies by the looks of a race as well (`catalog.statistics.feasibility`).
    """

    def __init__(self, judgement: Judgement) -> None:
        budgets, family = judgement.budgets, judgement.family
        self._budgets, self._table, self._family = budgets, judgement.table, family
        self._columns, self._limits = judgement._latency, judgement._limits
        self._count = len(family.rows)
        # Whether a latency of a candidate has a part that errs once for all.
        self.shares_variance = self._table.shares_variance(tuple([budget.percentile for budget in budgets.latency]))
        self._of_accuracy = self._table.accuracy_tests(budgets)
        self._stepping: dict[int, float] = self._table.of_rows(
            (
                "stepping",
                budgets.min_accuracy_pct,
                budgets.max_accuracy_drop_pp,
                budgets.confidence,
                family.rows,
                family.share,
            ),
            dict,
        )
        # By number of tests and row, those of every budget of latency.
        self._of_latency: dict[int, dict[int, Sequence[float]]] = {}

    def confidences(self, rows: Sequence[int], count: int) -> Sequence[float]:
        """Return the confidences for stepping down; an accuracy that alone does not hold puts it below any level."""
        of_latency, shares, confidences = self._latency(rows, count), self._family.error_shares, []
        for row, by_budget in zip(rows, of_latency, strict=True):
            # Most questions have one budget of latency.
            least = by_budget[0] if len(by_budget) == 1 else min(by_budget, default=1.0)
            own, stepping = 1 - (1 - least) / shares[row], self._stepping.get(row)
            if stepping is None:
                stepping = self._stepping[row] = self._stepping_of(row)
            confidence = own if own < stepping else stepping
            confidences.append(confidence if confidence > 0 else 0.0)
        return confidences

    def _stepping_of(self, row: int) -> float:
        confidence = self.accuracy_confidence(row)
        # Judged once for all that share it, at level ** sharing; the root puts it on the scale of one test.
        return confidence ** (1 / self._family.sharing[row]) if confidence >= self._budgets.confidence else confidence

    def accuracy_confidence(self, row: int) -> float:
        """Return the largest level at which all budgets of accuracy hold, each by itself, with a share of the error."""
        confidence = 1 - (1 - self.of_accuracy(row).confidence) / self._family.share
        return confidence if confidence > 0 else 0.0

    def missed(self, rows: Sequence[int], step: _Step) -> Sequence[int | None]:
        """Return the place of the first check that does not hold at a step, None where all do."""
        return [
            self._first_below(row, confidences, step.level)
            for row, confidences in zip(rows, self._latency(rows, step.tests), strict=True)
        ]

    def _first_below(self, row: int, confidences: Sequence[float], level: float) -> int | None:
        least = with_share(level, self._family.error_shares[row]) - _ROUNDING
        for place, confidence in enumerate(confidences):
            if not confidence >= least:
                return place
        least = self._family.accuracy_level(row, level, self._budgets.confidence) - _ROUNDING
        for place, check in enumerate(self.of_accuracy(row).checks, start=len(confidences)):
            if not check.confidence >= least:
                return place
        return None

    def checks(self, row: int, level: float, count: int) -> tuple[BudgetCheck, ...]:
        """Judge at the level of a step."""
        of_latency = with_share(level, self._family.error_shares[row])
        of_accuracy = self._family.accuracy_level(row, level, self._budgets.confidence)
        effective, [confidences] = self._effective(row, count), self._latency([row], count)
        latency = [
            latency_check(columns.bounded[row], budget.max_s, confidence, confidence_level=of_latency, tests=effective)
            for columns, budget, confidence in zip(self._columns, self._budgets.latency, confidences, strict=True)
        ]
        return (*latency, *self.of_accuracy(row).at(of_accuracy))

    def of_accuracy(self, row: int) -> AccuracyTests:
        """Return the checks of the budgets of accuracy."""
        own = self._of_accuracy.get(row)
        if own is None:
            own = self._of_accuracy[row] = self._table.accuracy_tests_of(row, self._budgets)
        return own

    def _effective(self, row: int, count: int) -> int:
        return count if self.shares_variance[row] else self._count

    def _latency(self, rows: Sequence[int], count: int) -> Sequence[Sequence[float]]:
        """Return the confidences of every budget of latency, for each of these candidates."""
        # Kept: stepping down asks for the same number as what is said afterwards.
        kept = self._of_latency.setdefault(count, {})
        if new := [row for row in rows if row not in kept]:
            self._compute(new, count, kept)
        return [kept[row] for row in rows]

    def _compute(self, rows: Sequence[int], count: int, kept: dict[int, Sequence[float]]) -> None:
        if count != self._count and not all(self.shares_variance):
            # What does not share a variance is among all tests, whatever their number.
            alone = [row for row in rows if not self.shares_variance[row]]
            kept.update(zip(alone, self._latency(alone, self._count), strict=True))
            rows = [row for row in rows if self.shares_variance[row]]
        by_budget = [
            confidences_below([columns.promised[row] for row in rows], limit, tests=count)
            for columns, limit in zip(self._columns, self._limits, strict=True)
        ]
        # Most questions have one budget of latency.
        by_row = [[own] for own in by_budget[0]] if len(by_budget) == 1 else list(zip(*by_budget, strict=True))
        kept.update(zip(rows, by_row if by_budget else [()] * len(rows), strict=True))


def _no_confidence() -> float:
    return 0.0


def _certainty() -> float:
    return 1.0


def judge(candidates: Sequence[Candidate], budgets: Budgets) -> Judgement | None:
    """Decide where each candidate belongs, and how sure that is.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of the question: what is promised of them holds together.
    budgets : Budgets

    Returns
    -------
    Judgement or None
        None of no candidates.
    """
    if not candidates:
        return None
    table = table_of(candidates)
    # Kept, because relaxations try limits at the bounds of candidates, whatever limit was asked.
    return table.kept(("judged", budgets), lambda: Judgement(table, budgets))


def in_spite(near_miss: NearMiss, loss: float) -> Prospect:
    """Say what may be expected of a candidate whose estimates miss a budget: that it keeps them nevertheless."""
    estimate, chance = near_miss.estimate, near_miss.probability
    gap = UndecidedCandidate(estimate, Gap.UNPROVEN, miss=near_miss)
    return Prospect(estimate, status_of(chance), chance, loss, gap, _no_confidence)


def steadied(candidates: Sequence[Candidate], percentile: float) -> Mapping[Candidate, PercentileInterval]:
    """Return each candidate's percentile as a promise takes it: its variance moderated by those of all others."""
    if not candidates:
        return {}
    return dict(zip(candidates, table_of(candidates).latency(percentile).bounded, strict=True))


def _together(of_latency: float | None, of_accuracy: float | None) -> float | None:
    """Return the probability that all budgets hold: latency and accuracy are measured on different inputs."""
    return None if of_latency is None or of_accuracy is None else of_latency * of_accuracy


def _miss_confidence(candidate: Candidate, latency: Sequence[LogEstimate | None], budgets: Budgets) -> float:
    accuracy, drop = labelled_accuracy(candidate), drop_of(candidate)
    broken = [
        0.0 if own is None else 1 - own.confidence_below(math.log(budget.max_s))
        for own, budget in zip(latency, budgets.latency, strict=True)
    ]
    if budgets.min_accuracy_pct is not None:
        broken.append(0.0 if accuracy is None else below_floor(accuracy, budgets.min_accuracy_pct))
    if budgets.max_accuracy_drop_pp is not None:
        broken.append(0.0 if drop is None else drop.confidence_above(budgets.max_accuracy_drop_pp))
    # Any of them would do, and the surest was found by looking.
    return max(broken, default=0.0) ** len(broken)


def _undecided(estimate: Estimate, missing: MissingEvidence) -> UndecidedCandidate:
    return UndecidedCandidate(estimate, missing.gap, missing.percentile, missing.inputs_needed, refusal=missing.refusal)


def _unproven(estimate: Estimate, budgets: Budgets, missed: int) -> UndecidedCandidate:
    """Return the first budget whose bound is beyond it, with its percentile when it is one of latency."""
    check, percentile, unit = estimate.checks[missed], None, _unit(budgets, missed)
    if missed < len(budgets.latency):
        percentile = budgets.latency[missed].percentile
    return UndecidedCandidate(estimate, Gap.UNPROVEN, percentile, check=check, unit=unit)


def _unit(budgets: Budgets, place: int) -> Unit:
    """Return the unit of a check by its place: latencies come first, then a floor, then a drop."""
    if place < len(budgets.latency):
        return "s"
    return "%" if budgets.min_accuracy_pct is not None and place == len(budgets.latency) else "pp"


BudgetField = Literal["max_latency_s", "min_accuracy_pct", "max_accuracy_drop_pp"]


class Shortfall(NamedTuple):
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
    candidate: Candidate, budgets: Budgets, *, among: Sequence[Candidate], judged: Sequence[BudgetCheck] = ()
) -> tuple[Shortfall, ...]:
    """Compare every budget of a question with the evidence of one candidate.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets
    among : sequence of Candidate
        All of the question, this one included.
    judged : sequence of BudgetCheck, optional
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
        self._judged = judgement
        self._limits = _limits(budgets)
        self._estimates = budget_estimates(judgement)
        # By whether a candidate counts among those that a promise pays for.
        self._steps = {counted: _next_step(judgement, counted=counted) for counted in (True, False)}
        self._bounds = {counted: _latency_bounds(judgement, step) for counted, step in self._steps.items()}

    def of(self, candidate: Candidate, judged: Sequence[BudgetCheck] = ()) -> tuple[Shortfall, ...]:
        """Compare every budget with one candidate; `judged` gives its checks where it was judged."""
        row = self._rows[candidate]
        counted = row in self._judged.family.counted
        # At the level of the next candidate to hold.
        family, step = self._judged.family, self._steps[counted]
        level = None if judged else family.accuracy_level(row, step.level, self._budgets.confidence)
        # Of latencies the bound alone: the confidence of a budget that its own estimate misses is not shown.
        checks: Sequence[BudgetCheck | float | None] = judged or (
            *[column[row] for column in self._bounds[counted]],
            *accuracy_checks(candidate, self._budgets),
        )
        return tuple(
            [
                _against(candidate, *limit, estimates[row], check, level)
                for limit, estimates, check in zip(self._limits, self._estimates, checks, strict=True)
            ]
        )


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
    level: float | None,
) -> Shortfall:
    """Put the check of a budget, at another level where one is given, or its bound alone, beside the limit."""
    if not isinstance(check, BudgetCheck):
        return Shortfall(budget, percentile, limit, estimate, check)

    def judged() -> Shortfall:
        own = check if level is None else check.at(level)
        return Shortfall(budget, percentile, limit, estimate, own.bound, own.items, own.best_bound, own.items_needed)

    if check.items is None:
        return judged()
    return _of_accuracy.get(candidate, (budget, limit, check.level if level is None else level), judged)


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
    table, share = judged.table, judged.family.share

    def bounds(percentile: float) -> Sequence[float | None]:
        bounded = table.latency(percentile).bounded
        levels = [with_share(step.level, share * own) for own in table.error_share]
        return [upper_bound(own, level, tests=step.tests) for own, level in zip(bounded, levels, strict=True)]

    return [
        table.column(("bounds", budget.percentile, step, share), partial(bounds, budget.percentile))
        for budget in judged.budgets.latency
    ]


def _accuracy_bounds(judged: Judgement, step: _NextStep) -> list[Sequence[float | None]]:
    """Return the bounds of all candidates for each budget of accuracy."""
    budgets = judged.budgets
    limits = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if limits == (None, None):
        return []

    family, table = judged.family, judged.table
    levels = tuple(family.accuracy_level(row, step.level, budgets.confidence) for row in range(table.count))

    def bounds() -> list[Sequence[float | None]]:
        by_row = [
            [None if check is None else check.at(level).bound for check in accuracy_checks(candidate, budgets)]
            for level, candidate in zip(levels, table.candidates, strict=True)
        ]
        return list(zip(*by_row, strict=True))

    return table.kept(("accuracy bounds", limits, levels), bounds)


def next_bounds(judged: Judgement, *, proven: int, all_count: bool) -> list[Sequence[float | None]]:
    """Return for each budget of a question the bounds of all candidates, to be the next after those that are proven.

    A promise then pays for `all_count`, or for those of its `Family` and the candidate itself, less the proven ones.
    """
    counted, others = (_next_step(judged, counted=own, proven=proven, all_count=all_count) for own in (True, False))
    rows = judged.family.counted
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
