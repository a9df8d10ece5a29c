"""Whether budgets hold at a joint confidence: the promises of a recommendation.

A promise that is tested again and again errs more often than one that is tested once. So a race decides only at looks,
and each look has its share of the error; all shares together are at most one, however many looks there will be.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, Self

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.drop_bounds import lower_share
from catalog.statistics.drops import AccuracyDrop, mean_iou_drop
from catalog.statistics.intervals import N_RESAMPLES, IntervalRefusal, PercentileInterval, check_level
from catalog.statistics.log_estimate import WIDEST, exponential
from catalog.statistics.outcomes import sidak

# The mean of three rounds of 0.1 s is not quite 0.1 s and must not miss a budget of 0.1 s.
_LATENCY_ROUNDING = 1e-12
# A bound that is the limit has the level as its confidence, to so many digits.
_ROUNDING = 1e-9


# A tuple, because a question judges every budget of every candidate: a frozen dataclass takes several times as long.
class BudgetCheck(NamedTuple):
    """One budget of one candidate, judged at one level.

    Attributes
    ----------
    limit, estimate : float
        In the unit of the budget: seconds, percentage points, percent.
    confidence : float
        The largest level whose bound keeps within the limit, for this budget alone; 0 with a `refusal`.
    level : float
        The confidence required of this budget alone.
    refusal : IntervalRefusal or None
    bound_at : callable or None
        From a level to the one-sided bound at it; None with a `refusal`.
    items : int or None
        Validation items that a budget of accuracy rests on.
    best_confidence : float
        The largest level at which as many items could show the limit to hold, if none were lost (wrong, for a floor).
    best_bound_at : callable or None
        From a level to the bound that as many items would then give.
    widest : float or None
        A larger bound is of no use to anybody; None where any is.
    needed_at : callable or None
        From a level to the fewest items that could show the limit to hold, or None where no number could.

    Examples
    --------
    >>> check = BudgetCheck(limit=1.0, estimate=0.5, confidence=0.99, level=0.95)
    >>> check.holds, check.at(0.995).holds
    (True, False)
    """

    limit: float
    estimate: float
    confidence: float
    level: float
    refusal: IntervalRefusal | None = None
    bound_at: Callable[[float], float] | None = None
    items: int | None = None
    best_confidence: float = 1.0
    best_bound_at: Callable[[float], float] | None = None
    needed_at: Callable[[float], int | None] | None = None
    widest: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the bound keeps within the limit, but for rounding."""
        return self.confidence >= self.level - _ROUNDING

    @property
    def bound(self) -> float | None:
        """One-sided, at the level; None where it is unknown, or too far away to be of use."""
        bound = None if self.bound_at is None else self.bound_at(self.level)
        return None if bound is not None and self.widest is not None and bound > self.widest else bound

    @property
    def out_of_reach(self) -> bool:
        """Whether so few items cannot show the limit to hold at the level, whatever their results."""
        return self.best_confidence < self.level - _ROUNDING

    @property
    def best_bound(self) -> float | None:
        """The best bound that so many items can give, at the level; None for a latency."""
        return None if self.best_bound_at is None else self.best_bound_at(self.level)

    @property
    def items_needed(self) -> int | None:
        """The fewest items that could show the limit to hold; None where there are enough, or no number could."""
        return self.needed_at(self.level) if self.needed_at is not None and self.out_of_reach else None

    def at(self, level: float) -> Self:
        """Judge the same budget at another level."""
        return self if level == self.level else self._replace(level=level)


def latency_within(
    interval: PercentileInterval, max_s: float, *, confidence_level: float = 0.95, tests: int = 1
) -> BudgetCheck:
    """Check a latency budget.

    Parameters
    ----------
    interval : PercentileInterval
        From `percentile_intervals`; its own level does not matter here.
    max_s : float
        The budget in seconds, above 0.
    confidence_level : float
        Of this check by itself; `step_down` says which one makes those of many candidates hold together.
    tests : int
        How many candidates are checked at that level: what they share errs once for all of them (`LogEstimate`).

    Returns
    -------
    BudgetCheck
        Does not hold, with the refusal, where the evidence is too thin.

    Raises
    ------
    ValueError
        For a limit that is not above 0, or a level out of range.

    Examples
    --------
    >>> from catalog.statistics.intervals import percentile_intervals
    >>> from catalog.statistics.samples import Samples
    >>> [p90] = percentile_intervals(Samples.from_arrays([0.1] * 60, [1, 2] * 30, np.arange(60) // 2), [90], rng=1)
    >>> latency_within(p90, 0.1).holds, latency_within(p90, 0.09).holds
    (True, False)
    """
    check_level(confidence_level)
    confidence = latency_confidence(interval, max_s, tests=tests)
    return latency_check(interval, max_s, confidence, confidence_level=confidence_level, tests=tests)


def latency_confidence(interval: PercentileInterval, max_s: float, *, tests: int = 1) -> float:
    """Return the largest level whose one-sided bound keeps within a latency budget; as `latency_within`.

    Examples
    --------
    >>> from catalog.statistics.intervals import percentile_intervals
    >>> from catalog.statistics.samples import Samples
    >>> [p90] = percentile_intervals(Samples.from_arrays([0.1] * 60, [1, 2] * 30, np.arange(60) // 2), [90], rng=1)
    >>> latency_confidence(p90, 0.1), latency_confidence(p90, 0.09)
    (1.0, 0.0)
    """
    if not max_s > 0:
        raise ValueError(f"a latency budget is above 0 s, got {max_s!r}")
    # A refusal is confidence 0: such a budget may be kept, but nothing is promised of it.
    if interval.estimate is None:
        return 0.0
    return interval.estimate.confidence_below(math.log(max_s * (1 + _LATENCY_ROUNDING)), tests=tests)


def latency_check(
    interval: PercentileInterval, max_s: float, confidence: float, *, confidence_level: float, tests: int
) -> BudgetCheck:
    """Return the check of a latency budget whose `latency_confidence` is known; as `latency_within`."""
    estimate = interval.estimate
    if estimate is None:
        return BudgetCheck(max_s, interval.estimate_s, confidence, confidence_level, interval.refusal)

    def bound_at(level: float) -> float:
        return exponential(estimate.upper(level, tests=tests))

    return BudgetCheck(
        max_s,
        interval.estimate_s,
        confidence,
        confidence_level,
        bound_at=bound_at,
        # Within the budget any bound is of use.
        widest=WIDEST * max(interval.estimate_s, max_s),
    )


def upper_bound(interval: PercentileInterval, level: float, *, tests: int = 1) -> float | None:
    """Return the one-sided upper bound of a percentile of latency.

    Parameters
    ----------
    interval : PercentileInterval
    level : float
        Of this bound by itself.
    tests : int
        As in `latency_within`.

    Returns
    -------
    float or None
        Seconds; None where the evidence is too thin.

    Examples
    --------
    >>> from catalog.statistics.intervals import percentile_intervals
    >>> from catalog.statistics.samples import Samples
    >>> [p90] = percentile_intervals(Samples.from_arrays([0.1] * 60, [1, 2] * 30, np.arange(60) // 2), [90], rng=1)
    >>> round(upper_bound(p90, 0.95), 6)
    0.1
    """
    return None if interval.estimate is None else exponential(interval.estimate.upper(level, tests=tests))


def drop_within(drop: AccuracyDrop, max_pp: float, *, confidence_level: float = 0.95) -> BudgetCheck:
    """Check a budget of accuracy lost against the reference.

    Parameters
    ----------
    drop : AccuracyDrop
        Its own level does not matter here.
    max_pp : float
        Percentage points.
    confidence_level
        As in `latency_within`.

    Returns
    -------
    BudgetCheck

    Examples
    --------
    >>> from catalog.statistics.drops import hit_drop
    >>> drop_within(hit_drop([True] * 99 + [False], [True] * 98 + [False] * 2), 1.0).holds
    False
    """
    check_level(confidence_level)
    # What as many items show at best tells too few items from a model that is too inaccurate.
    best = drop.bound.without_loss()
    return BudgetCheck(
        max_pp,
        drop.drop_pp,
        drop.confidence_at_most(max_pp),
        confidence_level,
        drop.refusal,
        None if drop.refusal else drop.upper_pp,
        drop.items,
        best.confidence_at_most(max_pp),
        best.upper_pp,
        lambda level: best.items_needed(max_pp, level),
    )


def floor_from_drop(short: AccuracyDrop, min_pct: float, *, confidence_level: float = 0.95) -> BudgetCheck:
    """Check a floor by the drop against a reference without error.

    Parameters
    ----------
    short : AccuracyDrop
        Against 100 %.
    min_pct : float
        Percent.
    confidence_level
        As in `latency_within`.

    Returns
    -------
    BudgetCheck

    Examples
    --------
    >>> from catalog.statistics.drops import hit_drop
    >>> round(floor_from_drop(hit_drop([True] * 83, [True] * 83), 90.0).bound, 1)
    96.2
    """
    # Accuracy is 100 less the drop against a reference without error, so one bound serves both budgets.
    check = drop_within(short, 100 - min_pct, confidence_level=confidence_level)
    return check._replace(
        limit=min_pct,
        estimate=100 - check.estimate,
        bound_at=_from_hundred(check.bound_at),
        best_bound_at=_from_hundred(check.best_bound_at),
    )


def _from_hundred(bound_at: Callable[[float], float] | None) -> Callable[[float], float] | None:
    return None if bound_at is None else lambda level: 100 - bound_at(level)


def hits_at_least(hits: ArrayLike, min_pct: float, *, confidence_level: float = 0.95) -> BudgetCheck:
    """Check a floor of top-1 or top-5 accuracy.

    Parameters
    ----------
    hits : array_like of bool, shape (items,)
        At least one.
    min_pct : float
        Percent.
    confidence_level
        As in `latency_within`.

    Returns
    -------
    BudgetCheck
        `bound` is Clopper and Pearson's exact lower bound.

    Raises
    ------
    ValueError
        For no items or values that are not boolean.

    References
    ----------
    C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 26 (1934).

    Examples
    --------
    >>> check = hits_at_least([True] * 90 + [False] * 10, 80)
    >>> check.holds, round(check.bound, 4)  # R: binom.test(90, 100, alternative = "greater")$conf.int[1]
    (True, 83.6282)
    """
    correct = np.asarray(hits)
    if correct.dtype != np.bool_ or correct.ndim != 1 or not correct.size:
        raise ValueError(
            f"hits are boolean, one-dimensional and not none, got {correct.dtype} of shape {correct.shape}"
        )
    check_level(confidence_level)
    right, items = int(correct.sum()), correct.size

    def bound_at(level: float) -> float:
        return 100 * lower_share(right, items, chance=1 - level)

    def best_bound_at(level: float) -> float:
        return 100 * lower_share(items, items, chance=1 - level)

    # A floor below 0 % always holds and one above 100 % never; the beta functions take shares alone.
    share = min(max(min_pct / 100, 0.0), 1.0)
    return BudgetCheck(
        min_pct,
        100 * right / items,
        _confidence_above(share, right, items),
        confidence_level,
        None,
        bound_at,
        items,
        _confidence_above(share, items, items),
        best_bound_at,
        # All right of n: the bound is a^(1 / n), with a the chance of an error.
        lambda level: None if share >= 1 else math.ceil(math.log(1 - level) / math.log(share)) if share > 0 else 1,
    )


def _confidence_above(share: float, right: int, items: int) -> float:
    """Return the level at which Clopper and Pearson's lower bound is the share: 1 - P(at least so many are right)."""
    return 1 - (float(scipy.special.betainc(right, items - right + 1, share)) if right else 1.0)


def confidence_below(share: float, right: int, items: int) -> float:
    """Return the level at which Clopper and Pearson's upper bound is the share: 1 - P(at most so many are right).

    Examples
    --------
    >>> round(confidence_below(0.9, 80, 100), 4)  # R: 1 - pbinom(80, 100, 0.9)
    0.998
    """
    share = min(max(share, 0.0), 1.0)
    return float(scipy.special.betainc(right + 1, items - right, share)) if right < items else 0.0


def mean_iou_at_least(
    intersection_px: NDArray[np.integer],
    union_px: NDArray[np.integer],
    min_pct: float,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    rng: np.random.Generator | int | None = None,
) -> BudgetCheck:
    """Check a floor of mean intersection over union.

    Parameters
    ----------
    intersection_px, union_px : int array, shape (images, classes)
    min_pct : float
        Percent.
    confidence_level
        As in `latency_within`.
    n_resamples : int
        Draws of images, at least 2.
    rng : numpy.random.Generator, int or None
        As scipy takes it.

    Returns
    -------
    BudgetCheck
        `bound` is the lower bound of `mean_iou_drop` over the images.

    Raises
    ------
    ValueError
        As `mean_iou_drop`.

    Notes
    -----
    The drop against a reference without error, whose intersections are its unions.

    Examples
    --------
    >>> check = mean_iou_at_least(np.full((83, 2), 8), np.full((83, 2), 10), 75, rng=1)
    >>> check.holds, round(check.bound, 1)
    (True, 76.5)
    """
    # Flawless masks are those whose intersection is the union.
    short = mean_iou_drop((union_px, union_px), (intersection_px, union_px), n_resamples=n_resamples, rng=rng)
    return floor_from_drop(short, min_pct, confidence_level=confidence_level)


class StepDown:
    """The level at which each test was made, and what all of them promise together.

    Attributes
    ----------
    holding : int
        How many tests hold.
    levels : float array, shape (tests,)
        The confidence that each test needed by itself: the largest for the first step, the last step's for all that
        do not hold.
    joint : float array, shape (tests,)
        The largest joint confidence at which each test would hold: 1 - its adjusted p-value.
    remaining : int array, shape (tests,)
        The number of tests at the step of each.
    """

    def __init__(
        self, confidences: Sequence[float], confidence_level: float, among: Callable[[int, int], float] | None
    ) -> None:
        self._confidences, self._confidence_level, self._among = confidences, confidence_level, among
        count = self._count = len(confidences)
        # Stable, so that equal confidences keep the candidates' order and the answer does not depend on the sort.
        self._surest_first = sorted(range(count), key=lambda test: -confidences[test])
        self._steps = [0] * count
        for step, test in enumerate(self._surest_first):
            self._steps[test] = step
        self._joint: list[float] = []
        self.holding = 0
        # No further: what comes after the first that does not hold is seldom asked for.
        for test in self._surest_first:
            self._joint.append(self._next_joint(test, self._joint))
            if not self._joint[-1] >= confidence_level:
                break
            self.holding += 1

    def holds(self, test: int) -> bool:
        """Return whether a test holds."""
        return self._steps[test] < self.holding

    def remaining_of(self, test: int) -> int:
        """Return the number of tests at the step of one."""
        # Every test that does not hold is shown at the level of the step that failed first.
        return self._count - min(self._steps[test], self.holding)

    def level_of(self, test: int) -> float:
        """Return the confidence that a test needed by itself."""
        return sidak(self._confidence_level, comparisons=self.remaining_of(test))

    def joint_of(self, test: int) -> float:
        """Return the largest joint confidence at which a test would hold."""
        return self._joint_of_step(self._steps[test])

    @property
    def levels(self) -> NDArray[np.float64]:
        return np.array([self.level_of(test) for test in range(self._count)], dtype=np.float64)

    @property
    def joint(self) -> NDArray[np.float64]:
        return np.array([self.joint_of(test) for test in range(self._count)], dtype=np.float64)

    @property
    def remaining(self) -> NDArray[np.int64]:
        return np.array([self.remaining_of(test) for test in range(self._count)], dtype=np.int64)

    def _joint_of_step(self, step: int) -> float:
        """Return the joint confidence of a step: of confidence c among k that remain, a test holds up to c ** k."""
        if step >= len(self._joint):
            # Replaced and not extended: several threads may ask.
            joint = list(self._joint)
            for test in self._surest_first[len(joint) : step + 1]:
                joint.append(self._next_joint(test, joint))
            self._joint = joint
        return self._joint[step]

    def _next_joint(self, test: int, joint: Sequence[float]) -> float:
        remaining = self._count - len(joint)
        confidence = self._confidences[test] if self._among is None else self._among(test, remaining)
        # Never surer than one before.
        return min(confidence**remaining, joint[-1] if joint else 1.0)


def step_down(
    confidences: Sequence[float],
    *,
    confidence_level: float = 0.95,
    among: Callable[[int, int], float] | None = None,
) -> StepDown:
    """Adjust the levels of many tests, the surest first (Holm's procedure with Sidak's levels).

    Parameters
    ----------
    confidences : sequence of float, shape (tests,)
        Of each test by itself, from 0 to 1: 1 - its p-value. A test that is impossible has 0 and counts.
    confidence_level : float
        Joint: with this probability nothing is asserted wrongly.
    among : callable or None
        From a test and a number of tests to its confidence as one of so many, where that makes a difference;
        `confidences` are then those among all. None where it makes none.

    Returns
    -------
    StepDown
        A test holds when its `joint` reaches the confidence level, which is when its confidence reaches its level.

    Raises
    ------
    ValueError
        For a level outside (0, 1) or confidences outside [0, 1].

    Notes
    -----
    The surest of k tests needs the level of k tests, the next that of k - 1, and so on until one fails. What holds has
    left the family: at any step all false assertions that are still possible are among the remaining tests, so their
    number is what has to be paid for. No test needs more than with one level for all, and a test that becomes surer
    takes nothing from the others. Sidak's levels ask that tests are independent or positively dependent, as they are
    when strategies share inputs.

    References
    ----------
    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    B. S. Holland and M. D. Copenhaver, An improved sequentially rejective Bonferroni test procedure, Biometrics 43
    (1987).

    Examples
    --------
    >>> steps = step_down([0.90, 0.999, 0.98])
    >>> steps.joint.round(4).tolist(), steps.levels.round(4).tolist()
    ([0.9, 0.997, 0.9604], [0.95, 0.983, 0.9747])
    """
    single = np.asarray(confidences, dtype=np.float64)
    if single.ndim != 1 or not ((single >= 0) & (single <= 1)).all():
        raise ValueError(f"confidences are one-dimensional and from 0 to 1, got {confidences!r}")
    if single.size:
        check_level(confidence_level)
    return StepDown(single.tolist(), confidence_level, among)


# Rounds of a strategy at the looks of a race; further ones are half as many again as those before.
LOOKS = (3, 5, 8, 12)
# Rounds before anything is decided. Strategies may leave after these, as after any later round: leaving spends none of
# the error.
LEAVING_LOOKS = (1, 2)
_GROWTH = 1.5
_SHARES = (0.3, 0.3, 0.2)


@dataclass(frozen=True)
class RaceLook:
    """A moment at which a race decides.

    Attributes
    ----------
    number : int
        From 1.
    rounds : int
        Of a strategy, at this look.
    error_share : float
        What a decision at this look may spend of the error.
    """

    number: int
    rounds: int
    error_share: float


def error_share(look: int) -> float:
    """Return what part of the error a look may spend.

    Parameters
    ----------
    look : int
        From 1.

    Returns
    -------
    float
        Of the first three looks as in `_SHARES`, of the further ones a falling part of the rest; the sum is 1.

    Raises
    ------
    ValueError
        For a look below 1.

    Notes
    -----
    The chance that any look errs is at most the sum of the chances at each (Boole). Most answers are proven at the
    second or the third look, and what is clear at the first needs little error; docs/racing.md compares schedules.

    Examples
    --------
    >>> [round(error_share(look), 3) for look in (1, 2, 3, 4, 5)]
    [0.3, 0.3, 0.2, 0.1, 0.033]
    >>> round(sum(error_share(look) for look in range(1, 100_000)), 4)
    1.0
    """
    if look < 1:
        raise ValueError(f"looks count from 1, got {look}")
    if look <= len(_SHARES):
        return _SHARES[look - 1]
    further = look - len(_SHARES)
    # 1 / (j (j + 1)) sums to 1 over all j.
    return (1 - sum(_SHARES)) / (further * (further + 1))


def looks(first: int) -> Iterator[RaceLook]:
    """Yield the looks of a race without end.

    Parameters
    ----------
    first : int
        Rounds at the first look: as many as are declared.

    Yields
    ------
    RaceLook

    Examples
    --------
    >>> from itertools import islice
    >>> [look.rounds for look in islice(looks(3), 8)], [look.rounds for look in islice(looks(4), 3)]
    ([3, 5, 8, 12, 18, 27, 40, 60], [4, 5, 8])
    """
    rounds = max(first, 1)
    for number in count(1):
        yield RaceLook(number, rounds, error_share(number))
        scheduled = (scheduled for scheduled in LOOKS if scheduled > rounds)
        rounds = next(scheduled, math.floor(rounds * _GROWTH))


def look_of(rounds: int, first: int) -> RaceLook:
    """Return the look that a round of a strategy belongs to: the first one that has as many rounds.

    Examples
    --------
    >>> [look_of(number, 3).number for number in (1, 3, 4, 5, 6)]
    [1, 1, 2, 2, 3]
    """
    return next(look for look in looks(first) if look.rounds >= rounds)


def next_look(rounds: int, first: int) -> RaceLook:
    """Return the first look that has more rounds than were measured.

    Examples
    --------
    >>> next_look(3, 3).rounds, next_look(0, 4).rounds
    (5, 4)
    """
    return look_of(rounds + 1, first)


def with_share(level: float, share: float) -> float:
    """Return the level that a decision needs which may spend only a share of the error.

    Examples
    --------
    >>> with_share(0.95, 1.0), round(with_share(0.95, 0.5), 4)
    (0.95, 0.975)
    """
    return 1 - share * (1 - level)
