"""How many rounds would prove what the estimates promise."""

from dataclasses import replace

import scipy

from catalog.statistics.log_estimate import LogEstimate

# More rounds than this are no plan: another budget or a lower confidence is.
ROUNDS_MAX = 60
# The chance that so many rounds prove it, if the estimate is the truth.
_POWER = 0.8


def rounds_needed(
    estimate: LogEstimate,
    limit: float,
    *,
    confidence_level: float,
    rounds: int,
    new_inputs: bool,
    tests: int = 1,
    most: int = ROUNDS_MAX,
) -> int | None:
    """Return how many rounds would bring the upper bound of a log latency below a limit.

    Parameters
    ----------
    estimate : LogEstimate
        From `rounds` rounds.
    limit : float
        On the scale of the estimate.
    confidence_level : float
        Of the one-sided bound.
    rounds : int
        As measured.
    new_inputs : bool
        Whether each round draws inputs of its own: then the variance from the inputs falls with the rounds too.
    tests : int
        Of how many bounds it is one, each at this level (`LogEstimate.upper`).
    most : int
        The largest number to try.

    Returns
    -------
    int or None
        In total, above `rounds`; None where not even `most` would do.

    Notes
    -----
    Takes the estimate for the truth. For a chance of four in five the distance to the limit must hold the guarded
    margin plus 0.84 standard errors. The variances fall with 1 / rounds, and each further round adds a degree of
    freedom; a model's error stays. An approximation, as `catalog.statistics.outcomes.still_needed`.

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=1)
    >>> [rounds_needed(estimate, limit, confidence_level=0.95, rounds=3, new_inputs=False) for limit in (0.25, 0.1, 0)]
    [5, 20, None]
    """
    low, high = rounds + 1, most + 1
    # More rounds are never worse, so bisection finds the fewest.
    while low < high:
        middle = (low + high) // 2
        within = _bound_after(estimate, rounds, middle, confidence_level, new_inputs=new_inputs, tests=tests) <= limit
        low, high = (low, middle) if within else (middle + 1, high)
    return low if low <= most else None


def _bound_after(
    estimate: LogEstimate, rounds: int, number: int, confidence_level: float, *, new_inputs: bool, tests: int
) -> float:
    """Return the bound that so many rounds would give with the chance of `_POWER`."""

    def bound() -> float:
        later = _after(estimate, rounds, number, new_inputs=new_inputs)
        return later.upper(confidence_level, tests=tests) + float(scipy.special.ndtri(_POWER)) * later.standard_error

    # Kept, because every question about the same evidence searches through the same numbers of rounds.
    return estimate.tables.bound((rounds, number, confidence_level, new_inputs, tests), bound)


def _after(estimate: LogEstimate, rounds: int, number: int, *, new_inputs: bool) -> LogEstimate:
    """Return the estimate as so many rounds would know it."""
    share, more, above = rounds / number, number - rounds, estimate.variance_inputs_above
    return replace(
        estimate,
        variance_rounds=estimate.variance_rounds * share,
        df_rounds=estimate.df_rounds + more,
        variance_shared=estimate.variance_shared * share,
        df_shared=estimate.df_shared + more,
        variance_inputs=estimate.variance_inputs * (share if new_inputs else 1.0),
        variance_inputs_above=None if above is None else above * (share if new_inputs else 1.0),
        df_inputs=estimate.df_inputs + (more if new_inputs else 0),
    )
