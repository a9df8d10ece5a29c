"""Variances across few rounds, steadied by those of the other strategies of the subject (empirical Bayes).

Three rounds know their variance with two degrees of freedom, and far in the tail, where bounds that hold for many
candidates lie, Student's t pays dearly for it. The other strategies, measured in the same rounds, say what variance is
usual for a latency of that size: much of the jitter is a matter of milliseconds, so that what is fast varies more in
proportion. How far that can be trusted is read from how far the variances scatter around it, and read cautiously: a
strategy that varies far more than the others must not be taken for a usual one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.intervals import LogEstimate

# So few strategies say nothing of how variances scatter; from there on they are trusted little by little.
_FEWEST = 6
# Of the prior's degrees of freedom, not counted.
_DISCOUNT = 1.0
# Scatter that would leave more is none that can be told from what few degrees of freedom make.
_LARGEST_DF = 1e4


@dataclass(frozen=True, eq=False)
class VariancePrior:
    """What variance is usual, and for how many degrees of freedom that counts.

    Attributes
    ----------
    variance : float array, shape (strategies,)
        At the latency of each.
    df : float
        0 when nothing can be said.
    """

    variance: NDArray[np.float64]
    df: float


def moderated(estimates: Sequence[LogEstimate]) -> tuple[LogEstimate, ...]:
    """Steady the variances across rounds of the strategies of one subject.

    Parameters
    ----------
    estimates : sequence of LogEstimate
        Of one percentile, for all strategies that were measured together.

    Returns
    -------
    tuple of LogEstimate
        With variance_rounds (d0 s0**2 + d s**2) / (d0 + d) for s**2 and df_rounds d0 + d for d; the same as given
        where the prior has no weight.

    Notes
    -----
    The moderated variance of Smyth with a prior that follows the latency (Sartor et al.). Two departures, both to the
    cautious side, because one noisy strategy among quiet ones is what must not be promised: the scatter of the
    variances is taken at one standard error above its estimate, and the prior's degrees of freedom lose one, are
    multiplied by 1 - 6 / strategies and never exceed the strategy's own. docs/statistics.md has the simulation.

    References
    ----------
    G. K. Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments, Statistical Applications in Genetics and Molecular Biology 3 (2004).
    M. A. Sartor et al., Intensity-based hierarchical Bayes method improves testing for differentially expressed genes
    in microarray experiments, BMC Bioinformatics 7 (2006).

    Examples
    --------
    >>> three = [LogEstimate(0.0, 0.01, 0.0, df_rounds=2, df_inputs=9)] * 3
    >>> moderated(three) == tuple(three)  # too few strategies to say what is usual
    True
    >>> alike = [LogEstimate(each / 18, 0.01, 0.0, df_rounds=2, df_inputs=9) for each in range(18)]
    >>> {each.df_rounds for each in moderated(alike)}
    {4}
    """
    given = [estimate for estimate in estimates if estimate.variance_rounds > 0]
    if len(given) <= _FEWEST:
        return tuple(estimates)
    prior = variance_prior(
        [each.value for each in given],
        [each.variance_rounds * (each.df_rounds + 1) for each in given],
        [each.df_rounds for each in given],
    )
    usual = iter(prior.variance.tolist())
    return tuple(
        _steadied(estimate, next(usual), _weight(prior.df, len(given), estimate.df_rounds))
        if estimate.variance_rounds > 0
        else estimate
        for estimate in estimates
    )


def variance_prior(
    log_latency: ArrayLike, variance: ArrayLike, df: ArrayLike, *, standard_errors: float = 1.0
) -> VariancePrior:
    """Fit a scaled inverse chi-square to variances, with a scale that follows the latency.

    Parameters
    ----------
    log_latency, variance, df : array_like of float, shape (strategies,)
        Each with a variance above 0 and at least one degree of freedom; more than two strategies.
    standard_errors : float
        By how many to raise the scatter of the log variances before reading the degrees of freedom from it.

    Returns
    -------
    VariancePrior

    Notes
    -----
    The log of a variance with d degrees of freedom has mean digamma(d / 2) - log(d / 2) and variance trigamma(d / 2)
    around the log of the true one. What log variances scatter beyond that, around a line over the log latency, is
    trigamma(d0 / 2) of the prior.

    Examples
    --------
    >>> from scipy import stats
    >>> drawn = stats.f(2, 8).ppf((np.arange(4000) + 0.5) / 4000)  # s0**2 = 1, d0 = 8
    >>> around = np.tile([-1.0, 1.0], 2000)
    >>> prior = variance_prior(around, drawn, np.full(4000, 2.0), standard_errors=0.0)
    >>> round(prior.df, 1), round(float(prior.variance.mean()), 2)
    (8.0, 1.0)
    """
    x, half = np.asarray(log_latency, dtype=np.float64), np.asarray(df, dtype=np.float64) / 2
    centred = np.log(np.asarray(variance, dtype=np.float64)) - scipy.special.digamma(half) + np.log(half)
    off = x - x.mean()
    slope = float(off @ centred) / spread if (spread := float(off @ off)) > 1e-12 else 0.0
    line = centred.mean() + slope * off
    freedom = x.size - 2
    scatter = float(((centred - line) ** 2).sum()) / freedom
    noise = scipy.special.polygamma(1, half)
    error = math.sqrt(2 / freedom + float((scipy.special.polygamma(3, half) / noise**2).mean()) / x.size)
    beyond = scatter * (1 + standard_errors * error) - float(noise.mean())
    d0 = min(2 * _inverse_trigamma(beyond), _LARGEST_DF) if beyond > 0 else _LARGEST_DF
    return VariancePrior(np.exp(line + scipy.special.digamma(d0 / 2) - math.log(d0 / 2)), d0)


def _weight(prior_df: float, strategies: int, own_df: float) -> float:
    """For how many degrees of freedom the others may speak."""
    return min(max(prior_df - _DISCOUNT, 0.0) * (1 - _FEWEST / strategies), own_df)


def _steadied(each: LogEstimate, usual: float, weight: float) -> LogEstimate:
    own = each.df_rounds
    pooled = (weight * usual / (own + 1) + own * each.variance_rounds) / (weight + own)
    return replace(each, variance_rounds=pooled, df_rounds=own + weight)


def _inverse_trigamma(value: float) -> float:
    """By Newton's method on 1 / trigamma, which is nearly a line."""
    if value < 1e-6:
        return 1 / value
    found = 0.5 + 1 / value
    for _ in range(50):
        at = float(scipy.special.polygamma(1, found))
        step = at * (1 - at / value) / float(scipy.special.polygamma(2, found))
        found += step
        if abs(step) <= 1e-10 * found:
            break
    return found
