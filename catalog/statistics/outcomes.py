"""Outcomes of a comparison, equivalent, different or unresolved, by its interval and a declared margin."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.rank_tests import PooledRanks


class ComparisonOutcome(StrEnum):
    """The outcome of a comparison against a margin."""

    EQUIVALENT = "equivalent"
    DIFFERENT = "different"
    UNRESOLVED = "unresolved"


def judge(low: float, high: float, *, margin: float) -> ComparisonOutcome:
    """Judge a difference by its interval.

    Parameters
    ----------
    low, high : float
        Of a log ratio or of percentage points; 0 is no difference.
    margin : float
        At or above 0: differences from -margin to margin do not matter.

    Returns
    -------
    ComparisonOutcome
        `equivalent` when the interval lies within the margin (two one-sided tests), even if it excludes 0; else
        `different` when it excludes 0 and with it the whole half of the margin beyond 0, so that the direction is
        certain though the size may not matter; else `unresolved`.

    Raises
    ------
    ValueError
        For a negative margin or NaN.

    References
    ----------
    D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power approach for assessing the
    equivalence of average bioavailability, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987).

    Examples
    --------
    >>> [judge(*interval, margin=5.0).value for interval in ((-1, 4), (1, 9), (-1, 9))]
    ['equivalent', 'different', 'unresolved']
    """
    if not (margin >= 0 and low <= high):
        raise ValueError(f"a margin is at or above 0 and low is at most high, got {margin!r}, {low!r}, {high!r}")
    # First: an interval within the margin is equivalent even if it excludes 0, because the difference does not matter.
    if -margin <= low and high <= margin:
        return ComparisonOutcome.EQUIVALENT
    return ComparisonOutcome.DIFFERENT if low > 0 or high < 0 else ComparisonOutcome.UNRESOLVED


# Of many tests, those whose p-value is above this are left out, and the p-values of the others divided by it
# (docs/statistics.md, "Budgets").
COUNTED = 0.9


def sidak(confidence_level: float, *, comparisons: int) -> float:
    """Return the level of each interval so that all of them hold together.

    Parameters
    ----------
    confidence_level : float
        Of all together.
    comparisons : int
        How many; at least 1.

    Returns
    -------
    float
        ``confidence_level ** (1 / comparisons)``.

    Raises
    ------
    ValueError
        For fewer than one or a level outside (0, 1).

    References
    ----------
    Z. Sidak, Rectangular confidence regions for the means of multivariate normal distributions, Journal of the
    American Statistical Association 62 (1967).

    Examples
    --------
    >>> round(sidak(0.95, comparisons=3), 5)
    0.98305
    """
    if comparisons < 1 or not 0 < confidence_level < 1:
        raise ValueError(
            f"at least one comparison and a level above 0 and below 1 are needed, got {comparisons!r} "
            f"and {confidence_level!r}"
        )
    return math.exp(math.log(confidence_level) / comparisons)


# Beyond this many times the present evidence, more measurements are no useful advice.
_FACTOR_MAX = 1000
# The customary power of a planned test: a chance of four in five.
_POWER = 0.8


@dataclass(frozen=True)
class StillNeeded:
    """Totals, each of which settles a comparison with a chance of about four in five, if the estimate is right.

    Attributes
    ----------
    rounds : int or None
        With the inputs as they are; None when no number of rounds would do.
    inputs : int or None
        With the rounds as they are; None when no number of inputs would do.
    rounds_and_inputs : (int, int) or None
        Both grown by the same factor; None beyond a thousandfold.
    """

    rounds: int | None
    inputs: int | None
    rounds_and_inputs: tuple[int, int] | None


def still_needed(
    estimate: LogEstimate, *, margin: float, confidence_level: float, rounds: int, inputs: int
) -> StillNeeded:
    """Plan the rounds or inputs that settle a comparison.

    Parameters
    ----------
    estimate : LogEstimate
        Of a log ratio, from `rounds` rounds and `inputs` inputs.
    margin : float
        Of equivalence, on the log ratio.
    confidence_level : float
        Of the interval, two-sided.
    rounds, inputs : int
        As measured.

    Returns
    -------
    StillNeeded
        Not below what is measured.

    Notes
    -----
    Takes the estimate for the truth. It is settled when half the width of the interval is below the distance to the
    nearer decision: |value| for `different`, margin - |value| for `equivalent`, whichever is larger. For a chance of
    four in five the distance must hold the t quantile plus 0.84 standard errors. The variance across rounds falls with
    1 / rounds, that from the inputs with 1 / inputs; degrees of freedom grow with the numbers as in
    `estimate_over_rounds`. An approximation: an estimate that overstates the difference understates the need.

    Examples
    --------
    >>> estimate = LogEstimate(0.1, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=5)
    >>> still_needed(estimate, margin=0.05, confidence_level=0.95, rounds=3, inputs=30)
    StillNeeded(rounds=26, inputs=None, rounds_and_inputs=(26, 260))
    """
    # Whichever verdict has more room: away from 0 for different, inside the margin for equivalent.
    target = max(abs(estimate.value), margin - abs(estimate.value))

    # What the other strategies add to the degrees of freedom does not grow with the rounds of these two.
    borrowed = estimate.df_rounds - (rounds - 1)

    def settles(more_rounds: float, more_inputs: float) -> bool:
        grown = dataclasses.replace(
            estimate,
            variance_rounds=estimate.variance_rounds / more_rounds,
            variance_inputs=estimate.variance_inputs / more_inputs,
            # Rounds minus one; the inputs' freedom grows with the square root of their number (Hall and Martin).
            df_rounds=rounds * more_rounds - 1 + borrowed,
            df_inputs=estimate.df_inputs * math.sqrt(more_inputs),
            sides=tuple((variance / more_rounds, df + rounds * (more_rounds - 1)) for variance, df in estimate.sides),
        )
        return (
            grown.guarded_margin(confidence_level) + float(scipy.special.ndtri(_POWER)) * grown.standard_error <= target
        )

    by_rounds = _smallest(lambda number: settles(number / rounds, 1.0), start=rounds)
    # The other side stays as it is: each of the three answers stands alone.
    by_inputs = _smallest(lambda number: settles(1.0, number / inputs), start=inputs)
    both = _smallest(lambda number: settles(number / rounds, number / rounds), start=rounds)
    return StillNeeded(
        rounds=by_rounds,
        inputs=by_inputs,
        rounds_and_inputs=None if both is None else (both, math.ceil(both * inputs / rounds)),
    )


def _smallest(enough: Callable[[int], bool], *, start: int) -> int | None:
    """Return the smallest number from `start` that is enough, by bisection; more is never worse."""
    low, high = start, start * _FACTOR_MAX
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


Magnitude = Literal["negligible", "small", "medium", "large"]


def cliffs_delta(pooled: PooledRanks) -> NDArray[np.float64]:
    """Compute Cliff's delta of all pairs of groups.

    Parameters
    ----------
    pooled : PooledRanks
        As returned by `pool_ranks`.

    Returns
    -------
    ndarray, shape (groups, groups)
        Row is the left member of a pair, column the right: the share of pairs of values in which the left one is the
        larger, minus the share in which it is the smaller. From −1 to 1; antisymmetric; 0 on the diagonal.

    Notes
    -----
    **Sign.** Negative: the left member has, in general, the lower values, so for latencies it is the faster one (paper,
    section 4.6.2). The paper's tables hold one subject in each triangle, and both triangles show the delta of the
    member *listed first* against the one listed later. So the upper triangle reads (row, column), as the footnote of
    Table 5 says, and the lower one (column, row): there, ResNext's cell E, M is positive because Mobile is slower than
    Edge. Tables 13 and 16 are whole matrices and read (row, column).

    **Cost.** After the one sort of all values, each group takes one cumulative histogram over the dense ranks, from
    which the values of all groups read how many of it they exceed: O(n) a group, O(n k) in all, in O(n) memory.

    References
    ----------
    N. Cliff, Dominance statistics: ordinal analyses to answer ordinal questions, Psychological Bulletin 114 (1993).

    Examples
    --------
    >>> from catalog.statistics.rank_tests import pool_ranks
    >>> float(cliffs_delta(pool_ranks({"edge": [1.0, 2.0], "mobile": [2.0, 3.0]}))[0, 1])
    -0.75
    """
    count = len(pooled.names)
    delta = np.zeros((count, count))
    distinct = int(pooled.dense_ranks.max(initial=-1)) + 1
    for column, (start, size) in enumerate(zip(pooled.starts, pooled.sizes, strict=True)):
        # One pass per group over the shared ranks: O(groups x values), where counting pairs would be O(values ** 2).
        counts = np.bincount(pooled.dense_ranks[start : start + size], minlength=distinct)
        below = np.cumsum(counts) - counts
        balance = 2 * below + counts - size  # per distinct value: members of this group below it, minus those above
        # `pool_ranks` refuses empty groups, of which reduceat would return the next group's first value.
        wins = np.add.reduceat(balance[pooled.dense_ranks], pooled.starts)
        delta[:, column] = wins / (pooled.sizes * size)
    return delta


def magnitude(delta: float) -> Magnitude:
    """Return the word for the size of a delta.

    Parameters
    ----------
    delta : float
        From −1 to 1.

    Returns
    -------
    str
        "negligible" below 0.147, "small" below 0.33, "medium" below 0.474, "large" from there on.

    Raises
    ------
    ValueError
        Outside −1 to 1, or NaN.

    References
    ----------
    Paper, section 4.6.2.

    Examples
    --------
    >>> magnitude(-0.38)
    'medium'
    """
    size = abs(delta)
    if not size <= 1:
        raise ValueError(f"Cliff's delta is from -1 to 1, got {delta!r}")
    # The limits of Romano et al. (2006), as in the paper.
    if size < 0.147:
        return "negligible"
    if size < 0.33:
        return "small"
    return "medium" if size < 0.474 else "large"


def delta_symbol(delta: float) -> str:
    """Write a delta as the cells of Tables 5 and 7 to 16 do.

    Parameters
    ----------
    delta : float
        From −1 to 1.

    Returns
    -------
    str
        The initial of its magnitude (N, S, M, L), with a minus where it is negative.

    Raises
    ------
    ValueError
        As `magnitude`.

    Examples
    --------
    >>> delta_symbol(-0.9)
    '-L'
    """
    return ("-" if delta < 0 else "") + magnitude(delta)[0].upper()
