"""How probable it is, after the evidence, that a budget holds: what a decision weighs, beside the bounds that promise.

A bound says what may be asserted: over all studies, an assertion is wrong with at most the stated chance, whatever the
truth is. A decision asks another question: after this one study, how probable is it that this strategy keeps its
budgets? That takes a prior, and here it is flat: on the log latency, on the shares of lost and gained items.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.statistics.drop_bounds import ROUNDING_PP, PairedCounts, SeparateCounts
from catalog.statistics.drops import AccuracyDrop
from catalog.statistics.log_estimate import LogEstimate, density_scale
from catalog.statistics.tables import HermiteTable

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
    of scaled t variables, one for each source of variance. The source with the largest variance is integrated exactly
    over fixed points of the others, which have equal probability.

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=9)
    >>> round(latency_probability(estimate, 0.1), 4)  # R: pt(1, 2)
    0.7887
    """
    tables, distance = estimate.tables, max_log - estimate.value
    table = tables.made.get(_PROBABILITY)
    if table is not None and (value := table.at(distance)) is not None:
        return value
    sources = _by_variance(estimate)
    if not sources:
        return float(estimate.value <= max_log)
    if table is None and tables.is_due(_PROBABILITY):
        tables.made[_PROBABILITY] = _probability_table(sources)
    (largest, df), shifts = sources[0], _shifts(sources)
    standard = (distance - shifts) / math.sqrt(largest)
    return float(scipy.special.stdtr(df, standard[np.newaxis]).mean(axis=1)[0])


def _by_variance(estimate: LogEstimate) -> list[tuple[float, float]]:
    """Return the variances that are not 0 with their degrees of freedom, the largest first."""
    sources = (source for source in _sources(estimate) if source[0] > 0)
    return sorted(sources, key=lambda source: source[0], reverse=True)


def _shares_within(
    sources: Sequence[tuple[float, float]], distances: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probability of an error below each distance, and its density there."""
    largest, df = sources[0]
    scale = math.sqrt(largest)
    standard = (distances[:, np.newaxis] - _shifts(sources)) / scale
    density = np.exp(density_scale(df) - (df + 1) / 2 * np.log1p(standard**2 / df)) / scale
    return scipy.special.stdtr(df, standard).mean(axis=1), density.mean(axis=1)


def _shifts(sources: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Return the errors of all sources but the first, at points of equal probability."""
    others = sources[1:]
    shifts = np.zeros(_POINTS if others else 1)
    for place, (variance, df) in enumerate(others):
        shifts = shifts + math.sqrt(variance) * _t_points(df)[_ORDERS[place]]
    return shifts


def _probability_table(sources: Sequence[tuple[float, float]]) -> HermiteTable:
    """Return the probability of an error below a distance, by the distance."""
    spread = math.sqrt(sum(variance for variance, _ in sources))
    # Denser in the middle, where the probability bends; far out it is computed.
    distances = 3 * spread * np.sinh(np.linspace(-4, 4, _NODES))
    return HermiteTable.of(distances, *_shares_within(sources, distances))


def _sources(estimate: LogEstimate) -> tuple[tuple[float, float], ...]:
    return (
        (estimate.variance_rounds, estimate.df_rounds),
        (estimate.variance_inputs, estimate.df_inputs),
        (estimate.variance_model, estimate.df_model),
        (estimate.variance_shared, estimate.df_shared),
    )


# The name of the table of `latency_probability` among those of an estimate.
_PROBABILITY = "probability"
# Of that table: so many that it agrees to eight decimals.
_NODES = 800
_POINTS = 64
# The points of different sources are combined at random: a Latin hypercube.
_ORDERS = [np.random.default_rng(place).permutation(_POINTS) for place in range(3)]


@lru_cache(maxsize=1024)
def _t_points(df: float) -> NDArray[np.float64]:
    """Return points of Student's t that stand for equal shares of its probability."""
    return np.asarray(scipy.special.stdtrit(df, (np.arange(_POINTS) + 0.5) / _POINTS), dtype=np.float64)


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
    is the share of draws from the posterior within the limit. Where only numbers of right items are known, both shares
    have a uniform prior; shared items make the true posterior narrower. A mean intersection over union has the
    confidence of its resampled bound: its distribution is that of the drop with a flat prior.

    Examples
    --------
    >>> from catalog.statistics.drops import hit_drop
    >>> drop = hit_drop([True] * 100, [True] * 100)
    >>> drop_probability(drop, 1.0) > drop_probability(drop, 0.0)
    True
    """
    bound = drop.bound
    if isinstance(bound, PairedCounts):
        drawn = _drops_pp(bound.lost, bound.gained, bound.items)
    elif isinstance(bound, SeparateCounts):
        drawn = _separate_drops_pp(bound)
    else:
        return bound.confidence_at_most(max_pp)
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


@lru_cache(maxsize=256)
def _separate_drops_pp(counts: SeparateCounts) -> NDArray[np.float64]:
    """Draw drops from the posteriors of two shares, as if they were of different items, in ascending order."""
    rng = np.random.default_rng(_SEED)
    right, reference_right = counts.right, counts.reference_right
    share = rng.beta(right + 1, counts.items - right + 1, _DRAWS)
    reference = rng.beta(reference_right + 1, counts.reference_items - reference_right + 1, _DRAWS)
    return np.sort(100 * (reference - share))


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


# What the correlation of percentiles is taken for before anything is seen, and how many degrees of freedom it counts.
_PRIOR_CORRELATION = 0.5
_PRIOR_DF = 4.0


def percentile_correlation(by_round: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Estimate how the errors of several percentiles of one latency are correlated.

    Parameters
    ----------
    by_round : sequence of float array, shape (rounds, percentiles)
        The log percentiles of each round, for each strategy of a subject; at least two rounds each.

    Returns
    -------
    float array, shape (percentiles, percentiles)
        Pooled over the strategies, each on the scale of its own spread, with a correlation of one half for a prior of
        four degrees of freedom.

    Examples
    --------
    >>> percentile_correlation([np.array([[0.0, 0.0], [1.0, 1.0]])] * 16).round(2).tolist()
    [[1.0, 0.9], [0.9, 1.0]]
    """
    count = by_round[0].shape[1]
    summed = _PRIOR_DF * np.where(np.eye(count, dtype=np.bool_), 1.0, _PRIOR_CORRELATION)
    for values in by_round:
        off = values - values.mean(axis=0)
        df = len(values) - 1
        # A noisy strategy must not drown the others.
        if (scale := float((off**2).sum()) / (df * count)) > 0:
            summed = summed + off.T @ off / scale
    spread = np.sqrt(np.diag(summed))
    return np.asarray(summed / np.outer(spread, spread), dtype=np.float64)


def joint_probability(probabilities: Sequence[float], correlation: NDArray[np.float64]) -> float:
    """Return the probability that several limits on one latency hold together.

    Parameters
    ----------
    probabilities : sequence of float
        Of each limit by itself.
    correlation : float array, shape (limits, limits)
        Of their errors.

    Returns
    -------
    float
        At most the least of them and at least their product.

    Notes
    -----
    A normal copula by fixed draws: the share of correlated normal vectors that are within the normal quantiles of the
    probabilities.

    Examples
    --------
    >>> halves = joint_probability([0.5, 0.5], np.array([[1.0, 0.5], [0.5, 1.0]]))
    >>> abs(halves - 1 / 3) < 0.01  # exactly 1 / 4 + arcsin(1 / 2) / (2 pi)
    True
    """
    least, product = min(probabilities), math.prod(probabilities)
    # Where all but one are certain, that one decides.
    if least - product < 1e-4:
        return least
    drawn = _normal_draws(len(probabilities)) @ np.linalg.cholesky(correlation).T
    share = float(np.all(drawn <= scipy.special.ndtri(np.asarray(probabilities)), axis=1).mean())
    return min(max(share, product), least)


@lru_cache(maxsize=8)
def _normal_draws(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(_SEED).standard_normal((_DRAWS, count))
