"""The variance of strategies across rounds, steadied by each other.

Three rounds know their variance with two degrees of freedom, and far in the tail, where bounds that hold for many
candidates lie, Student's t makes that expensive. The strategies of a subject were measured in the same rounds, and that
helps in two ways. What moves all of them alike in a round, a shared draw of inputs or a drift of the host, is split
off: it errs once for all of them and cancels in their ratios. Of the rest, which each strategy has by itself, the other
strategies show what is usual (empirical Bayes), and how far their variances scatter says how far to trust that.

Where the variance of one strategy's latency comes from, its rounds, its inputs or the rest, is estimated as well
(`variance_shares`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.samples import Samples

# So few strategies neither separate what they share nor show how variances scatter.
_FEWEST = 3
# Degrees of freedom of the prior that are not counted.
_DISCOUNT = 1.0
# By how many standard errors the scatter of the variances is raised before it is trusted.
_CAUTION = 0.5
# More than this cannot be distinguished from no scatter of the true variances at all.
_LARGEST_DF = 1e4
# Where rounds are too few to show whether strategies err alike, the others count for at most as much as its own rounds.
_UNSEEN = 2.0
# Fewer degrees of freedom than these, over all strategies, show nothing of what is usual for another one.
_FEWEST_DF = 4.0
# A single strategy may be noisier than the others are together: tails as heavy as with so many.
_MOST_DF = 4.0
# A strategy was mostly measured alone if the others took part in at most one of so many of its rounds.
_MOSTLY_ALONE = 4
# What rounding leaves of equal latencies, as a variance of logarithms.
_ROUNDING = 1e-24


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


@dataclass(frozen=True)
class UsualVariance:
    """What the other strategies say about a variance across rounds.

    Attributes
    ----------
    variance : float
        Of the value of one round, not of the mean over rounds.
    df : float
        For how many degrees of freedom it counts; 0 where the others say nothing.

    Examples
    --------
    >>> three_rounds = LogEstimate(0.0, 0.03, 0.0, df_rounds=2, df_inputs=9)
    >>> steadied = UsualVariance(0.03, df=6.0).steadied(three_rounds)
    >>> steadied.df_rounds, round(steadied.variance_rounds, 6)  # (6 * 0.03 + 2 * 0.09) / 8 / 3
    (8.0, 0.015)
    """

    variance: float
    df: float

    def steadied(self, estimate: LogEstimate) -> LogEstimate:
        """Return an estimate with the mean of this and its own variance, weighted by degrees of freedom."""
        # Unchanged to the last bit where the others say nothing, and where nothing varies, as between copies.
        if not self.df or not estimate.variance_rounds:
            return estimate
        df, rounds = estimate.df_rounds, estimate.df_rounds + 1
        # This is of one round; the estimate is a mean over df + 1 of them.
        pooled = (self.df * self.variance / rounds + df * estimate.variance_rounds) / (self.df + df)
        return replace(estimate, variance_rounds=pooled, df_rounds=df + self.df)


@dataclass(frozen=True)
class RatioVariance:
    """What the strategies of a subject say about the log ratio of two of them.

    Attributes
    ----------
    usual : UsualVariance
        Of the log ratio.
    sides : tuple of (float, float)
        The steadied own variance of one round of each strategy, and its degrees of freedom.
    strategies : int
        How many there are in the subject.
    """

    usual: UsualVariance
    sides: tuple[tuple[float, float], ...]
    strategies: int

    @property
    def is_known(self) -> bool:
        """Whether a single round of each can be compared: what is usual stands for what its own rounds do not show."""
        return all(df > 0 and variance > _ROUNDING for variance, df in self.sides)

    def steadied(self, estimate: LogEstimate, *, comparisons: int) -> LogEstimate:
        """Return the estimate of the log ratio, one of so many, with all that the strategies say of its variance."""
        rounds = estimate.df_rounds + 1
        steadied = self.usual.steadied(estimate)
        if not estimate.df_rounds and self.is_known:
            own, df = sum(variance for variance, _ in self.sides), min(df for _, df in self.sides)
            estimate = steadied = replace(estimate, variance_rounds=own, df_rounds=df)
        # A strategy that never varied by itself shows nothing of how far it may.
        if not estimate.variance_rounds or any(variance <= _ROUNDING for variance, _ in self.sides):
            return steadied
        return replace(
            steadied,
            sides=tuple((variance / rounds, df) for variance, df in self.sides),
            sides_power=comparisons / self.strategies,
        )


@dataclass(frozen=True, eq=False)
class StrategyVariances:
    """The variances across rounds of the strategies of one subject, split into what they share and what is their own.

    Attributes
    ----------
    shared : float
        Variance of the rounds' common effect; 0 where it was not split off.
    shared_df : float
    own : float array, shape (strategies,)
        Variance of one round of each strategy, without the common effect.
    df : float array, shape (strategies,)
        Of `own`; 0 for a strategy of one round.
    usual : tuple of UsualVariance
        What the others say about each own variance.
    effects : mapping of int to float
        The common effect of each round that enough strategies have; they are 0 on average.
    """

    shared: float
    shared_df: float
    own: NDArray[np.float64]
    df: NDArray[np.float64]
    usual: tuple[UsualVariance, ...]
    effects: Mapping[int, float] = field(default_factory=dict)

    def of_ratio(self, first: int, second: int) -> RatioVariance:
        """Return what is known of the log ratio of two strategies, by their positions; the shared part cancels."""
        one, other = self.usual[first], self.usual[second]
        return RatioVariance(
            usual=UsualVariance(one.variance + other.variance, min(one.df, other.df)),
            sides=(self.side(first), self.side(second)),
            strategies=len(self.usual),
        )

    @property
    def presumed(self) -> UsualVariance:
        """What all say about the own variance of another strategy, which shows none itself.

        The mean by degrees of freedom, which noisy ones dominate; 0 degrees of freedom where they show too little.
        """
        df = float(self.df.sum())
        if df < _FEWEST_DF:
            return UsualVariance(0.0, 0.0)
        return UsualVariance(float((self.own * self.df).sum()) / df, min(df, _MOST_DF))

    def side(self, position: int) -> tuple[float, float]:
        """Return the steadied own variance of one round of a strategy, and its degrees of freedom."""
        df, own, usual = float(self.df[position]), float(self.own[position]), self.usual[position]
        if not usual.df + df:
            return 0.0, 0.0
        return (usual.df * usual.variance + df * own) / (usual.df + df), usual.df + df


def moderated(estimates: Sequence[LogEstimate]) -> tuple[LogEstimate, ...]:
    """Split and steady the variances across rounds of the strategies of one subject.

    Parameters
    ----------
    estimates : sequence of LogEstimate
        Of one percentile, for all strategies that were measured together. The shared part is split off where they say
        what each round gave (`by_round`).

    Returns
    -------
    tuple of LogEstimate
        With variance_rounds (d0 s0**2 + d s**2) / (d0 + d) for an own variance s**2, df_rounds d0 + d for d, and the
        variance of what all share as variance_shared; the same as given for three strategies or fewer, and for one that
        was mostly measured alone, as a race's last ones are.

    Notes
    -----
    As `strategy_variances`. docs/statistics.md has the simulation. The many rounds that a strategy has alone show all
    that it varies by, what is shared included; the few that all have would know their part by a degree of freedom or
    two, whose quantile at a race's late looks is beyond any budget. Only numbers of rounds decide which is taken.

    Examples
    --------
    >>> three = [LogEstimate(0.0, 0.01, 0.0, df_rounds=2, df_inputs=9)] * 3
    >>> moderated(three) == tuple(three)  # too few strategies to say what is usual
    True
    >>> alike = [LogEstimate(number / 18, 0.01, 0.0, df_rounds=2, df_inputs=9) for number in range(18)]
    >>> {round(estimate.df_rounds) for estimate in moderated(alike)}
    {4}
    """
    varying = [estimate for estimate in estimates if estimate.variance_rounds > 0]
    if len(varying) <= _FEWEST:
        return tuple(estimates)
    if all(estimate.by_round for estimate in varying):
        variances = strategy_variances([dict(estimate.by_round) for estimate in varying])
    else:
        variances = _unsplit(varying)
    positions = iter(range(len(varying)))
    return tuple(
        _steadied(estimate, variances, next(positions)) if estimate.variance_rounds > 0 else estimate
        for estimate in estimates
    )


def _steadied(estimate: LogEstimate, variances: StrategyVariances, position: int) -> LogEstimate:
    # Without a shared part the own one is the estimate's, to the last bit.
    if variances.shared > 0:
        common = sum(number in variances.effects for number, _ in estimate.by_round)
        if _MOSTLY_ALONE * common <= len(estimate.by_round):
            return estimate
        rounds = estimate.df_rounds + 1
        estimate = replace(
            estimate,
            variance_rounds=float(variances.own[position]) / rounds,
            variance_shared=variances.shared / rounds,
            df_shared=variances.shared_df,
        )
    return variances.usual[position].steadied(estimate)


def strategy_variances(by_round: Sequence[Mapping[int, float]]) -> StrategyVariances:
    """Split the variances of strategies that were measured in the same rounds, and say what is usual.

    Parameters
    ----------
    by_round : sequence of mapping of int to float, one per strategy
        The log percentile, or its pseudo-value, by round number. Rounds may be missing.

    Returns
    -------
    StrategyVariances

    Notes
    -----
    Two-way: value = strategy + round + rest. The round's effect is the weighted mean over the strategies, those with
    more than the median variance weighing less. The rest of a strategy is taken against the mean of the *others*, so
    that its variance is not made smaller by its own share in the mean; it can only be overstated.

    Strategies of one round show no variance; theirs is presumed to be the mean of the others' (`presumed`).

    The own variances are then steadied as Smyth does, with a prior that follows the latency (Sartor et al.), and these
    departures, all to the cautious side: the scatter of the variances is taken half a standard error above its
    estimate; the prior loses one degree of freedom and the share 3 / strategies; a strategy whose variance lies in the
    upper tail of what the prior expects keeps only part of it (after Phipson et al.); and where the strategies' rests
    point the same ways, as many degrees of freedom are counted as so many independent strategies would have. Two rounds
    cannot show the latter: there the prior counts at most as much as the strategy's own round.

    References
    ----------
    G. K. Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments, Statistical Applications in Genetics and Molecular Biology 3 (2004).
    M. A. Sartor et al., Intensity-based hierarchical Bayes method improves testing for differentially expressed genes
    in microarray experiments, BMC Bioinformatics 7 (2006).
    B. Phipson, S. Lee, I. J. Majewski, W. S. Alexander and G. K. Smyth, Robust hyperparameter estimation protects
    against hypervariable genes and improves power to detect differential expression, Annals of Applied Statistics 10
    (2016).

    Examples
    --------
    >>> drift = {1: 0.1, 2: -0.1, 3: 0.0}
    >>> alike = [{number: place + effect for number, effect in drift.items()} for place in (-4.0, -3.0, -2.0, -1.0)]
    >>> variances = strategy_variances(alike)
    >>> round(variances.shared, 6), variances.own.round(6).tolist()
    (0.01, [0.0, 0.0, 0.0, 0.0])
    """
    several = [place for place, values in enumerate(by_round) if len(values) > 1]
    variances = _of_several([by_round[place] for place in several])
    own, df, usual = np.zeros(len(by_round)), np.zeros(len(by_round)), [variances.presumed] * len(by_round)
    own[several], df[several] = variances.own, variances.df
    for place, steadied in zip(several, variances.usual, strict=True):
        usual[place] = steadied
    return replace(variances, own=own, df=df, usual=tuple(usual))


def _of_several(by_round: Sequence[Mapping[int, float]]) -> StrategyVariances:
    """Return the variances of strategies with two rounds or more each."""
    df = np.array([len(values) - 1 for values in by_round], dtype=np.float64)
    table = _Table.of(by_round)
    if table is None:
        own = np.array([_variance(list(values.values())) for values in by_round])
        shared, shared_df, independent, by_number = 0.0, 1.0, _UNSEEN, {}
    else:
        effects, rest = table.split()
        by_number = {number: effects[place] for place, number in enumerate(table.numbers) if table.common[place]}
        own = np.nansum(rest**2, axis=1) / df
        shared, shared_df = _variance(effects[table.common].tolist()), float(table.common.sum() - 1)
        independent = _independent(rest[:, table.common])
    place = np.array([np.mean(list(values.values())) for values in by_round])
    return StrategyVariances(shared, shared_df, own, df, _usual(place, own, df, independent), by_number)


def _unsplit(estimates: Sequence[LogEstimate]) -> StrategyVariances:
    """Return the variances of estimates that do not say what each round gave."""
    df = np.array([estimate.df_rounds for estimate in estimates])
    # Of one round, not of the mean over rounds: strategies with more rounds would otherwise look quieter.
    own = np.array([estimate.variance_rounds for estimate in estimates]) * (df + 1)
    place = np.array([estimate.value for estimate in estimates])
    return StrategyVariances(0.0, 1.0, own, df, _usual(place, own, df, _UNSEEN))


def _variance(values: Sequence[float]) -> float:
    return float(np.var(values, ddof=1)) if len(values) > 1 else 0.0


@dataclass(frozen=True, eq=False)
class _Table:
    """Values of strategies by round, NaN where missing, and which rounds most of them have in common."""

    numbers: list[int]
    values: NDArray[np.float64]  # shape (strategies, rounds)
    common: NDArray[np.bool_]  # shape (rounds,)

    @classmethod
    def of(cls, by_round: Sequence[Mapping[int, float]]) -> "_Table | None":
        """Return None where too few strategies or rounds are common."""
        numbers = sorted({number for values in by_round for number in values})
        values = np.array([[row.get(number, np.nan) for number in numbers] for row in by_round])
        count = np.isfinite(values).sum(axis=0) if by_round else np.zeros(0)
        common = (count > _FEWEST) & (2 * count >= len(by_round))
        return cls(numbers, values, common) if common.sum() >= 2 else None

    def split(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the effect of each round, and what is left of each value against the other strategies' effect."""
        present = np.isfinite(self.values)
        complete = bool(present.all())
        # Without gaps the plain functions give the same bits, in a fraction of the time.
        mean, total = (np.mean, np.sum) if complete else (np.nanmean, np.nansum)
        effects = np.zeros(self.values.shape[1])
        weight = np.ones(self.values.shape[0])
        rest = share = self.values
        # With all rounds present the effects stand after the first pass and the weights after the third.
        for _ in range(3 if complete else 8):
            level = mean(self.values - effects, axis=1, keepdims=True)
            share = np.where(present, weight[:, np.newaxis], 0.0)
            share = share / share.sum(axis=0)
            effects = np.where(self.common, total(share * (self.values - level), axis=0), 0.0)
            effects[self.common] -= effects[self.common].mean()
            rest = self.values - mean(self.values - effects, axis=1, keepdims=True) - effects
            # Against the others' mean: dividing by 1 - share takes the strategy itself out of it.
            rest = np.where(self.common, rest / (1 - np.where(share < 1, share, 0.0)), rest)
            weight = _mean_weights(total(rest**2, axis=1) / np.maximum(present.sum(axis=1) - 1, 1))
        return effects, rest


def _mean_weights(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights that fall with a variance above the median, so that noisy strategies do not make the effects."""
    median = float(np.median(variance))
    # Drawn to the median, because a variance of two degrees of freedom is itself hardly known.
    steadied = np.maximum((2 * median + variance) / 3, median)
    return 1 / steadied if median > _ROUNDING else np.ones_like(variance)


def _independent(rest: NDArray[np.float64]) -> float:
    """Return how many independent strategies are worth as much as these, by how far their rests point the same ways.

    The squared cosine of two independent strategies is 1 / n on average, n being the rounds less one. What it is beyond
    that estimates a squared correlation, and correlated variances average like fewer ones (Kish's design effect).
    """
    complete = rest[np.isfinite(rest).all(axis=1)]
    length = np.sqrt((complete**2).sum(axis=1, keepdims=True))
    direction = complete[length[:, 0] > math.sqrt(_ROUNDING)] / length[length[:, 0] > math.sqrt(_ROUNDING)]
    strategies, freedom = len(direction), rest.shape[1] - 1
    if strategies < 2 or freedom < 2:
        return _UNSEEN
    squares = float(((direction.T @ direction) ** 2).sum())
    cosine = (squares - strategies) / (strategies * (strategies - 1))
    correlation = min(max((cosine - 1 / freedom) / (1 - 1 / freedom), 0.0), 1.0)
    return float(strategies / (1 + (strategies - 1) * correlation))


def _usual(
    place: NDArray[np.float64], own: NDArray[np.float64], df: NDArray[np.float64], independent: float
) -> tuple[UsualVariance, ...]:
    varying = own > _ROUNDING
    strategies = int(varying.sum())
    if strategies <= _FEWEST:
        return (UsualVariance(0.0, 0.0),) * own.size
    prior = variance_prior(place[varying], own[varying], df[varying], standard_errors=_CAUTION)
    trusted = max(prior.df - _DISCOUNT, 0.0) * (1 - _FEWEST / strategies)
    # The tail that the prior leaves above a variance: a noisy strategy among quiet ones must not pass for a usual one.
    tail = scipy.special.fdtrc(df[varying], max(prior.df, 0.1), own[varying] / prior.variance)
    weight = np.minimum(trusted * np.minimum(strategies * tail, 1.0), df[varying] * max(independent - 1, 0.0))
    usual = iter(zip(prior.variance.tolist(), weight.tolist(), strict=True))
    return tuple(UsualVariance(*next(usual)) if varies else UsualVariance(0.0, 0.0) for varies in varying)


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
