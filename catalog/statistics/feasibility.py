"""Whether budgets hold at a joint confidence: what a recommendation may promise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from catalog.statistics.drops import AccuracyDrop
from catalog.statistics.intervals import N_RESAMPLES, PercentileInterval
from catalog.statistics.iou_drops import mean_iou_drop
from catalog.statistics.refusal import Refusal
from catalog.statistics.verdicts import sidak

# The mean of three rounds of 0.1 s is not quite 0.1 s and must not miss a budget of 0.1 s.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class BudgetCheck:
    """One budget of one candidate.

    Attributes
    ----------
    holds : bool
        Whether the bound keeps within the limit.
    limit, estimate : float
        In the unit of the budget: seconds, percentage points, percent.
    bound : float or None
        One-sided, at the level that makes all candidates of the question hold together; None with a `refusal`.
    confidence : float
        The largest level whose bound keeps within the limit, for this budget alone; 0 with a `refusal`.
    refusal : Refusal or None
    """

    holds: bool
    limit: float
    estimate: float
    bound: float | None
    confidence: float
    refusal: Refusal | None


@dataclass(frozen=True)
class Feasibility:
    """All budgets of one candidate.

    Attributes
    ----------
    feasible : bool
        All budgets hold, at the joint confidence asked.
    joint_confidence : float
        The largest joint confidence at which they would, over all candidates; 0 where that is none.
    checks : tuple of BudgetCheck
    """

    feasible: bool
    joint_confidence: float
    checks: tuple[BudgetCheck, ...]


def latency_within(
    interval: PercentileInterval, max_s: float, *, confidence_level: float = 0.95, candidates: int = 1
) -> BudgetCheck:
    """Check a latency budget.

    Parameters
    ----------
    interval : PercentileInterval
        From `percentile_intervals`; its own level does not matter here.
    max_s : float
        The budget in seconds, above 0.
    confidence_level : float
        Joint over the candidates.
    candidates : int
        Of the question.

    Returns
    -------
    BudgetCheck
        Does not hold, with the refusal, where the evidence is too thin.

    Raises
    ------
    ValueError
        For a limit that is not above 0, a level or number of candidates out of range.

    Examples
    --------
    >>> from catalog.statistics.intervals import percentile_intervals
    >>> from catalog.statistics.samples import Samples
    >>> [p90] = percentile_intervals(Samples.from_arrays([0.1] * 60, [1, 2] * 30, np.arange(60) // 2), [90], rng=1)
    >>> latency_within(p90, 0.1).holds, latency_within(p90, 0.09).holds
    (True, False)
    """
    level = sidak(confidence_level, comparisons=candidates)
    if not max_s > 0:
        raise ValueError(f"a latency budget is above 0 s, got {max_s!r}")
    if interval.estimate is None:
        return BudgetCheck(False, max_s, interval.estimate_s, None, 0.0, interval.refusal)
    bound = interval.upper_s(level)
    assert bound is not None
    limit = max_s * (1 + _ROUNDING)
    confidence = interval.estimate.confidence_below(float(np.log(limit)))
    return BudgetCheck(bound <= limit, max_s, interval.estimate_s, bound, confidence, None)


def drop_within(
    drop: AccuracyDrop, max_pp: float, *, confidence_level: float = 0.95, candidates: int = 1
) -> BudgetCheck:
    """Check a budget of accuracy lost against the reference.

    Parameters
    ----------
    drop : AccuracyDrop
        Its own level does not matter here.
    max_pp : float
        Percentage points.
    confidence_level, candidates
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
    bound = drop.upper_pp(sidak(confidence_level, comparisons=candidates))
    return BudgetCheck(
        bound <= max_pp + 1e-9, max_pp, drop.drop_pp, bound, drop.confidence_at_most(max_pp), refusal=None
    )


def hits_at_least(
    hits: ArrayLike, min_pct: float, *, confidence_level: float = 0.95, candidates: int = 1
) -> BudgetCheck:
    """Check a floor of top-1 or top-5 accuracy.

    Parameters
    ----------
    hits : array_like of bool, shape (items,)
        At least one.
    min_pct : float
        Percent.
    confidence_level, candidates
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
    given = np.asarray(hits)
    if given.dtype != np.bool_ or given.ndim != 1 or not given.size:
        raise ValueError(f"hits are boolean, one-dimensional and not none, got {given.dtype} of shape {given.shape}")
    right, level = int(given.sum()), sidak(confidence_level, comparisons=candidates)
    bound = 100 * float(special.betaincinv(right, given.size - right + 1, 1 - level)) if right else 0.0
    # P(at least so many right) at the floor: the level at which the bound would be the floor itself.
    share = min(max(min_pct / 100, 0.0), 1.0)
    chance = float(special.betainc(right, given.size - right + 1, share)) if right else 1.0
    return BudgetCheck(bound >= min_pct, min_pct, 100 * right / given.size, bound, 1 - chance, refusal=None)


def mean_iou_at_least(
    intersection_px: NDArray[np.integer],
    union_px: NDArray[np.integer],
    min_pct: float,
    *,
    confidence_level: float = 0.95,
    candidates: int = 1,
    n_resamples: int = N_RESAMPLES,
    rng: np.random.Generator | int | None = None,
) -> BudgetCheck:
    """Check a floor of mean intersection over union.

    Parameters
    ----------
    intersection_px, union_px : int array, shape (images, classes)
    min_pct : float
        Percent.
    confidence_level, candidates
        As in `latency_within`.
    n_resamples : int
        Draws of images, at least 2.
    rng : numpy.random.Generator, int or None
        As scipy takes it.

    Returns
    -------
    BudgetCheck
        `bound` is the lower bound of the bootstrap over images.

    Raises
    ------
    ValueError
        As `mean_iou_drop`.

    Notes
    -----
    The drop against a reference without error, whose intersections are its unions.

    Examples
    --------
    >>> check = mean_iou_at_least(np.full((4, 2), 8), np.full((4, 2), 10), 75, rng=1)
    >>> check.holds, round(check.bound, 6)
    (True, 80.0)
    """
    short = mean_iou_drop((union_px, union_px), (intersection_px, union_px), n_resamples=n_resamples, rng=rng)
    check = drop_within(short, 100 - min_pct, confidence_level=confidence_level, candidates=candidates)
    assert check.bound is not None
    return BudgetCheck(check.holds, min_pct, 100 - check.estimate, 100 - check.bound, check.confidence, refusal=None)


def feasibility(checks: Sequence[BudgetCheck], *, candidates: int = 1) -> Feasibility:
    """Put the budgets of one candidate together.

    Parameters
    ----------
    checks : sequence of BudgetCheck
        All with the same level and candidates.
    candidates : int
        As given to the checks.

    Returns
    -------
    Feasibility

    Notes
    -----
    A candidate that breaks any budget passes only if that budget's own test errs, so the budgets of one candidate need
    no further adjustment (intersection-union test); the candidates do, because the best of many is chosen: Sidak.
    Without budgets everything is feasible.

    References
    ----------
    R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24 (1982).

    Examples
    --------
    >>> check = BudgetCheck(holds=True, limit=1.0, estimate=0.5, bound=0.9, confidence=0.99, refusal=None)
    >>> feasibility([check], candidates=2)  # doctest: +ELLIPSIS
    Feasibility(feasible=True, joint_confidence=0.9801, checks=...)
    """
    single = min((each.confidence for each in checks), default=1.0)
    return Feasibility(
        feasible=all(each.holds for each in checks),
        joint_confidence=single**candidates,
        checks=tuple(checks),
    )
