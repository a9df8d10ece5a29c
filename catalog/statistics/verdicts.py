"""Equivalent, different or unresolved: what an interval says against a declared margin."""

import math
from enum import StrEnum


class Verdict(StrEnum):
    """What is known of a difference."""

    EQUIVALENT = "equivalent"
    DIFFERENT = "different"
    UNRESOLVED = "unresolved"


def judge(low: float, high: float, *, margin: float) -> Verdict:
    """Judge a difference by its interval.

    Parameters
    ----------
    low, high : float
        Of a log ratio or of percentage points; 0 is no difference.
    margin : float
        At or above 0: differences from -margin to margin do not matter.

    Returns
    -------
    Verdict
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
        return Verdict.EQUIVALENT
    return Verdict.DIFFERENT if low > 0 or high < 0 else Verdict.UNRESOLVED


def sidak(confidence_level: float, *, comparisons: int) -> float:
    """Level of each interval so that all of them hold together.

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
