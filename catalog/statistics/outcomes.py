"""Outcomes of a comparison, equivalent, different or unresolved, by its interval and a declared margin."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import scipy

from catalog.statistics.intervals import LogEstimate


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
    if -margin <= low and high <= margin:
        return ComparisonOutcome.EQUIVALENT
    return ComparisonOutcome.DIFFERENT if low > 0 or high < 0 else ComparisonOutcome.UNRESOLVED


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
    target = max(abs(estimate.value), margin - abs(estimate.value))

    def settles(more_rounds: float, more_inputs: float) -> bool:
        grown = dataclasses.replace(
            estimate,
            variance_rounds=estimate.variance_rounds / more_rounds,
            variance_inputs=estimate.variance_inputs / more_inputs,
            df_rounds=(estimate.df_rounds + 1) * more_rounds - 1,
            df_inputs=estimate.df_inputs * math.sqrt(more_inputs),
        )
        return (
            grown.guarded_margin(confidence_level) + float(scipy.special.ndtri(_POWER)) * grown.standard_error <= target
        )

    by_rounds = _smallest(lambda number: settles(number / rounds, 1.0), start=rounds)
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
