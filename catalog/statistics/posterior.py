"""How probable it is, after the evidence, that a budget holds: what a decision weighs, beside the bounds that promise.

A bound says what may be asserted: over all studies, an assertion is wrong with at most the stated chance, whatever the
truth is. A decision asks another question: after this one study, how probable is it that this strategy keeps its
budgets? That takes a prior, and here it is flat: on the log latency, on the shares of lost and gained items.
"""

from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.statistics.drop_bounds import ROUNDING_PP, PairedCounts
from catalog.statistics.drops import AccuracyDrop
from catalog.statistics.intervals import LogEstimate

_DRAWS = 4096
# The same evidence gives the same probability.
_SEED = 1


def latency_probability(estimate: LogEstimate, max_log: float) -> float:
    """Return the posterior probability that a log latency is at or below a limit.

    Parameters
    ----------
    estimate : LogEstimate
        With the variances that the decision shall use.
    max_log : float
        Natural logarithm of the limit.

    Returns
    -------
    float

    Notes
    -----
    With a flat prior on the log latency and on the logarithm of each variance, the posterior is the estimate plus a sum
    of scaled t variables, one for each source. Its spread is that of Student's t with Satterthwaite's degrees of
    freedom, to a good approximation (docs/statistics.md, "How probable").

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=9)
    >>> round(latency_probability(estimate, 0.1), 4)  # R: pt(1, 2)
    0.7887
    """
    error = estimate.standard_error
    if not error > 0:
        return float(estimate.value <= max_log)
    return float(scipy.special.stdtr(estimate.df, (max_log - estimate.value) / error))


def drop_probability(drop: AccuracyDrop, max_pp: float) -> float:
    """Return the posterior probability that a drop of accuracy is at or below a limit.

    Parameters
    ----------
    drop : AccuracyDrop
    max_pp : float
        Percentage points.

    Returns
    -------
    float

    Notes
    -----
    Where items are lost, gained or neither, the shares of the three have a uniform Dirichlet prior, and the probability
    is the share of draws from the posterior within the limit. A mean intersection over union has the confidence of
    its resampled bound: its distribution is that of the drop with a flat prior.

    Examples
    --------
    >>> from catalog.statistics.drops import hit_drop
    >>> drop = hit_drop([True] * 100, [True] * 100)
    >>> drop_probability(drop, 1.0) > drop_probability(drop, 0.0)
    True
    """
    bound = drop.bound
    if not isinstance(bound, PairedCounts):
        return bound.confidence_at_most(max_pp)
    drawn = _drops_pp(bound.lost, bound.gained, bound.items)
    within = int(np.searchsorted(drawn, max_pp + ROUNDING_PP, side="right"))
    # Half a draw off both ends: so many draws never show certainty.
    return (within + 0.5) / (drawn.size + 1)


# Strategies share artifacts and questions ask about the same ones: a draw takes longer than all that uses it.
@lru_cache(maxsize=256)
def _drops_pp(lost: int, gained: int, items: int) -> NDArray[np.float64]:
    """Draw drops from their posterior, in ascending order."""
    counts = np.array([lost, gained, items - lost - gained]) + 1.0
    # Gamma variables over their sum are a draw from the Dirichlet distribution.
    gammas = np.random.default_rng(_SEED).standard_gamma(counts, size=(_DRAWS, 3))
    return np.sort(100 * (gammas[:, 0] - gammas[:, 1]) / gammas.sum(axis=1))


def share_probability(right: int, items: int, least: float) -> float:
    """Return the posterior probability that a share is at or above a limit, with a flat prior.

    Parameters
    ----------
    right, items : int
    least : float
        A share.

    Returns
    -------
    float

    Examples
    --------
    >>> round(share_probability(90, 100, 0.85), 3)  # R: 1 - pbeta(0.85, 91, 11)
    0.907
    """
    return 1 - float(scipy.special.betainc(right + 1, items - right + 1, min(max(least, 0.0), 1.0)))
