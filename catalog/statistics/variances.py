"""The variance of a strategy's latency: where it comes from, and how the other strategies steady it across few rounds.

Three rounds know their variance with two degrees of freedom, and far in the tail, where bounds that hold for many
candidates lie, Student's t makes that expensive. The other strategies, measured in the same rounds, show what variance
is usual for a latency of that size (empirical Bayes): much of the jitter is a matter of milliseconds, so fast
strategies vary more in proportion. How far the variances scatter around it says how far to trust it, and is read
cautiously: a strategy that varies far more than the others must not pass for a usual one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.intervals import LogEstimate
from catalog.statistics.samples import Samples


@dataclass(frozen=True)
class VarianceShares:
    """Variance components of the log latency.

    Attributes
    ----------
    rounds, inputs, rest : float or None
        Variances, truncated at zero. None together with a `reason`.
    rounds_share, inputs_share, rest_share : float or None
        Of their sum; all zero for constant latencies.
    truncated : tuple of str
        The components whose unbiased estimate was below zero and is given as zero.
    samples : int
    effective_samples : float or None
        How many independent samples would give the mean log latency the same variance; None for constant latencies.
    reason : str or None
        Why the components cannot be separated.
    """

    rounds: float | None
    inputs: float | None
    rest: float | None
    rounds_share: float | None
    inputs_share: float | None
    rest_share: float | None
    truncated: tuple[str, ...]
    samples: int
    effective_samples: float | None
    reason: str | None


def variance_shares(samples: Samples) -> VarianceShares:
    """Split the variance of the log latency among rounds, inputs and the rest.

    Parameters
    ----------
    samples : Samples
        At least 2 rounds and 2 inputs that overlap; cells may be missing and repetitions unequal.

    Returns
    -------
    VarianceShares

    Notes
    -----
    The model is y = mean + round + input + round x input + repetition, all random. The sums of squares of cell, round,
    input and overall means have expectations that are linear in the components, whatever cells are missing; solving
    them gives Henderson's method I, unbiased for any pattern and equal to the analysis of variance for a full table.
    The rest is round x input plus repetition; without repetitions the two are one. A negative estimate is set to zero
    and named. The effective number is the sum of the components over the variance of the overall mean.

    References
    ----------
    C. R. Henderson, Estimation of variance and covariance components, Biometrics 9 (1953).

    Examples
    --------
    >>> latency = np.exp([[0.0, 1.0], [2.0, 3.0]])
    >>> samples = Samples.from_arrays(latency.ravel(), [1, 1, 2, 2], [0, 1, 0, 1])
    >>> shares = variance_shares(samples)
    >>> round(shares.rounds, 6), round(shares.inputs, 6), round(abs(shares.rest), 6)
    (2.0, 0.5, 0.0)
    """
    if samples.interpenetrating:
        return _unknown(samples, "each round has inputs of its own, so that rounds and inputs are not told apart")
    if samples.rounds.size < 2 or samples.inputs.size < 2:
        return _unknown(
            samples,
            f"at least 2 rounds and 2 inputs are needed to separate them, got {samples.rounds.size} and "
            f"{samples.inputs.size}",
        )
    repeated = bool((samples.cells > 1).any())
    coefficients, squares = _equations(samples, repeated=repeated)
    if np.linalg.matrix_rank(coefficients) < coefficients.shape[0]:
        return _unknown(samples, "the rounds share too few inputs to separate rounds from inputs")
    solved = np.linalg.solve(coefficients, squares).astype(np.float64)
    # What rounding leaves of zero is neither a component nor a negative estimate.
    solved[np.abs(solved) < 1e-12 * max(float(np.mean(samples.log_latency**2)), 1.0) ** 0.5] = 0.0
    return _shares(samples, solved[1:])


def _equations(samples: Samples, *, repeated: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the expectations of the sums of squares in (mean squared, round, input, round x input[, repetition])."""
    # Centred, because the components do not depend on the mean and its square would swamp them.
    values = samples.log_latency - samples.log_latency.mean()
    cells = samples.cells
    # Henderson's method I (1953): it needs no complete table, which an interrupted fill does not give.
    sums = np.zeros(cells.shape)
    np.add.at(sums, (samples.round_position, samples.input_position), values)
    count, by_round, by_input, filled = cells.sum(), cells.sum(axis=1), cells.sum(axis=0), cells > 0
    squared = cells.astype(np.float64) ** 2
    in_rounds, in_inputs = (squared.sum(axis=1) / by_round).sum(), (squared.sum(axis=0) / by_input).sum()
    rows = [
        [count, (by_round.astype(float) ** 2).sum() / count, (by_input.astype(float) ** 2).sum() / count,
         squared.sum() / count, 1],
        [count, count, in_rounds, in_rounds, by_round.size],
        [count, in_inputs, count, in_inputs, by_input.size],
        [count, count, count, count, filled.sum()],
        [count, count, count, count, count],
    ]  # fmt: skip
    squares = [
        sums.sum() ** 2 / count,
        (sums.sum(axis=1) ** 2 / by_round).sum(),
        (sums.sum(axis=0) ** 2 / by_input).sum(),
        (sums[filled] ** 2 / cells[filled]).sum(),
        (values**2).sum(),
    ]
    # Without repetitions the cell and the repetition are one: only their sum can be estimated.
    unknowns = 5 if repeated else 4
    return np.array(rows, dtype=np.float64)[:unknowns, :unknowns], np.array(squares)[:unknowns]


def _shares(samples: Samples, solved: NDArray[np.float64]) -> VarianceShares:
    """Return the shares from the unbiased components (round, input, round x input[, repetition])."""
    rounds, inputs, rest = (float(variance) for variance in (solved[0], solved[1], solved[2:].sum()))
    raw = {"rounds": rounds, "inputs": inputs, "rest": rest}
    # An unbiased estimate of a variance near zero is often negative; `truncated` says so.
    kept = {name: max(value, 0.0) for name, value in raw.items()}
    total = sum(kept.values())
    return VarianceShares(
        **kept,
        rounds_share=kept["rounds"] / total if total else 0.0,
        inputs_share=kept["inputs"] / total if total else 0.0,
        rest_share=kept["rest"] / total if total else 0.0,
        truncated=tuple(name for name, value in raw.items() if value < 0),
        samples=samples.log_latency.size,
        effective_samples=_effective(samples, kept["rounds"], kept["inputs"], np.maximum(solved[2:], 0.0)),
        reason=None,
    )


def _effective(samples: Samples, rounds: float, inputs: float, rest: NDArray[np.float64]) -> float | None:
    cells = samples.cells.astype(np.float64)
    count = cells.sum()
    crossed, repetition = rest[0], rest[1:].sum()
    # A level's share in the overall mean is its share of the samples: components enter by the squares of these.
    of_mean = (
        rounds * (cells.sum(axis=1) ** 2).sum() + inputs * (cells.sum(axis=0) ** 2).sum() + crossed * (cells**2).sum()
    ) / count**2 + repetition / count
    return float((rounds + inputs + crossed + repetition) / of_mean) if of_mean > 0 else None


def _unknown(samples: Samples, reason: str) -> VarianceShares:
    return VarianceShares(
        rounds=None,
        inputs=None,
        rest=None,
        rounds_share=None,
        inputs_share=None,
        rest_share=None,
        truncated=(),
        samples=samples.log_latency.size,
        effective_samples=None,
        reason=reason,
    )


# So few strategies say nothing about how variances scatter; with more, trust grows little by little.
_FEWEST = 6
# Degrees of freedom of the prior that are not counted.
_DISCOUNT = 1.0
# More than this cannot be distinguished from no scatter of the true variances at all.
_LARGEST_DF = 1e4


@dataclass(frozen=True, eq=False)
class VariancePrior:
    """The usual variance, and for how many degrees of freedom it counts.

    Attributes
    ----------
    variance : float array, shape (strategies,)
        At the latency of each strategy.
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
    >>> alike = [LogEstimate(number / 18, 0.01, 0.0, df_rounds=2, df_inputs=9) for number in range(18)]
    >>> {estimate.df_rounds for estimate in moderated(alike)}
    {4}
    """
    varying = [estimate for estimate in estimates if estimate.variance_rounds > 0]
    if len(varying) <= _FEWEST:
        return tuple(estimates)
    prior = variance_prior(
        [estimate.value for estimate in varying],
        # Of one round, not of the mean over rounds: strategies with more rounds would otherwise look quieter.
        [estimate.variance_rounds * (estimate.df_rounds + 1) for estimate in varying],
        [estimate.df_rounds for estimate in varying],
    )
    usual = iter(prior.variance.tolist())
    return tuple(
        _steadied(estimate, next(usual), _weight(prior.df, len(varying), estimate.df_rounds))
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
    # Smyth 2004: the log of a chi-square variance is biased by digamma(d / 2) - log(d / 2).
    centred = np.log(np.asarray(variance, dtype=np.float64)) - scipy.special.digamma(half) + np.log(half)
    off = x - x.mean()
    # Equal latencies say nothing about a trend; dividing by their rounding would.
    slope = float(off @ centred) / spread if (spread := float(off @ off)) > 1e-12 else 0.0
    line = centred.mean() + slope * off
    # The line takes two parameters.
    freedom = x.size - 2
    scatter = float(((centred - line) ** 2).sum()) / freedom
    noise = scipy.special.polygamma(1, half)
    error = math.sqrt(2 / freedom + float((scipy.special.polygamma(3, half) / noise**2).mean()) / x.size)
    beyond = scatter * (1 + standard_errors * error) - float(noise.mean())
    # No scatter beyond chance: as far as can be seen, all true variances lie on the line.
    d0 = min(2 * _inverse_trigamma(beyond), _LARGEST_DF) if beyond > 0 else _LARGEST_DF
    return VariancePrior(np.exp(line + scipy.special.digamma(d0 / 2) - math.log(d0 / 2)), d0)


def _weight(prior_df: float, strategies: int, own_df: float) -> float:
    """Return the degrees of freedom that the other strategies may add."""
    return min(max(prior_df - _DISCOUNT, 0.0) * (1 - _FEWEST / strategies), own_df)


def _steadied(estimate: LogEstimate, usual: float, weight: float) -> LogEstimate:
    own = estimate.df_rounds
    # The usual variance is of one round; this estimate's is of the mean of own + 1 rounds.
    pooled = (weight * usual / (own + 1) + own * estimate.variance_rounds) / (weight + own)
    return replace(estimate, variance_rounds=pooled, df_rounds=own + weight)


def _inverse_trigamma(value: float) -> float:
    """Invert trigamma by Newton's method on 1 / trigamma, which is nearly a line."""
    # trigamma(x) is 1 / x to first order for large x; Newton would lose all digits there.
    if value < 1e-6:
        return 1 / value
    root = 0.5 + 1 / value
    for _ in range(50):
        at = float(scipy.special.polygamma(1, root))
        step = at * (1 - at / value) / float(scipy.special.polygamma(2, root))
        root += step
        if abs(step) <= 1e-10 * root:
            break
    return root
