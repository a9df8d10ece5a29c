"""How many rounds would prove what the estimates promise."""

import numpy as np
import scipy

from catalog.statistics.intervals import LogEstimate

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
    numbers = np.arange(rounds + 1, most + 1)
    squares, variances = np.zeros(numbers.size), np.zeros(numbers.size)
    for variance, df, falls in (
        (estimate.variance_rounds, estimate.df_rounds, True),
        (estimate.variance_inputs, estimate.df_inputs, new_inputs),
        (estimate.variance_model, estimate.df_model, False),
    ):
        if variance > 0:
            later = variance * (rounds / numbers if falls else np.ones(numbers.size))
            freedom = df + (numbers - rounds if falls else 0)
            squares += scipy.special.stdtrit(freedom, confidence_level) ** 2 * later
            variances += later
    margins = np.sqrt(squares) + float(scipy.special.ndtri(_POWER)) * np.sqrt(variances)
    enough = np.flatnonzero(estimate.value + margins <= limit)
    return int(numbers[enough[0]]) if enough.size else None
