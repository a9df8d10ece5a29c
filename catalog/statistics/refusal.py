"""Why the evidence supports no interval, and what has to be measured for one."""

import math
from dataclasses import dataclass
from enum import StrEnum


class RefusalKind(StrEnum):
    """Why there is no interval."""

    ONE_ROUND = "one_round"
    TOO_THIN = "too_thin"
    NOTHING_IN_COMMON = "nothing_in_common"
    TOO_FEW_IMAGES = "too_few_images"


@dataclass(frozen=True)
class IntervalRefusal:
    """No interval, the reason in words, and the least that would allow one.

    Attributes
    ----------
    kind : RefusalKind
    reason : str
    rounds_needed, inputs_needed : int
        In total, not in addition; of `TOO_FEW_IMAGES`, how many images have to be of the kind that `reason` names.
    """

    kind: RefusalKind
    reason: str
    rounds_needed: int
    inputs_needed: int


def inputs_needed(percentile: float, *, confidence_level: float = 0.95) -> int:
    """Return the fewest inputs that can bound a percentile from above without assuming a distribution.

    Parameters
    ----------
    percentile : float
        Above 0 and below 100.
    confidence_level : float
        Above 0 and below 1.

    Returns
    -------
    int
        The smallest n with 1 - p**n >= `confidence_level`, p being `percentile` / 100.

    Raises
    ------
    ValueError
        Outside these ranges.

    Notes
    -----
    The largest of n independent values is above the percentile with probability 1 - p**n: with fewer, not even the
    largest is an upper bound. Mirror the percentile for a lower bound.

    References
    ----------
    S. S. Wilks, Determination of sample sizes for setting tolerance limits, Annals of Mathematical Statistics 12
    (1941).

    Examples
    --------
    >>> [inputs_needed(p) for p in (50, 90, 95, 99)]
    [5, 29, 59, 299]
    """
    if not (0 < percentile < 100 and 0 < confidence_level < 1):
        raise ValueError(
            f"a percentile is above 0 and below 100 and a confidence level above 0 and below 1, "
            f"got {percentile!r} and {confidence_level!r}"
        )
    # All n inputs below the true percentile have the probability p ** n; only then is their largest no upper bound.
    needed = math.log(1 - confidence_level) / math.log(percentile / 100)
    # A last bit above a whole number must not cost another input.
    return max(1, math.ceil(needed - 1e-9))


def refuse(*, rounds: int, inputs: int, percentile: float, interpenetrating: bool = False) -> IntervalRefusal | None:
    """Return why so few rounds or inputs have no interval of the percentile; None where they have one.

    Parameters
    ----------
    rounds, inputs : int
        Of the evidence; the inputs of the round with the fewest, or of all rounds where these are interpenetrating.
    percentile : float
        Above 0 and below 100.
    interpenetrating : bool
        Whether every round draws inputs of its own: then further rounds bring further inputs.

    Returns
    -------
    IntervalRefusal or None

    Notes
    -----
    The rule for the inputs is that of a single bound at 95 %, whatever the level of the interval. Below the median the
    lower bound is the one that needs the inputs.
    """
    # Both bounds are needed, and below the median the lower one is the harder.
    needed = inputs_needed(max(percentile, 100 - percentile))
    if interpenetrating and inputs < needed:
        more = max(2, math.ceil(needed * rounds / inputs))
        reason = (
            f"too thin: p{percentile:g} needs {needed} inputs over all rounds, got {inputs}; {more} rounds bring them"
        )
        return IntervalRefusal(RefusalKind.TOO_THIN, reason, rounds_needed=more, inputs_needed=needed)
    if inputs < needed:
        reason = f"too thin: p{percentile:g} needs {needed} inputs in each round, got {inputs}"
        return IntervalRefusal(RefusalKind.TOO_THIN, reason, rounds_needed=max(2, rounds), inputs_needed=needed)
    if rounds < 2:
        reason = "one round describes and decides nothing: how rounds differ is unknown, at least 2 are needed"
        return IntervalRefusal(RefusalKind.ONE_ROUND, reason, rounds_needed=2, inputs_needed=inputs)
    return None
