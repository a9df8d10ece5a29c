"""Percentiles of the whole pool from rounds that each measured a few of its inputs.

What is inferred is a *typical start* on *this pool*: the latency at the mean level of all rounds, over all inputs and
not only over those that were drawn. Sizes of all inputs are known, so a curve of latency over size foretells the
distribution over the pool. A curve may be wrong, by a step or a second format, and a wrong one is as wrong after a
hundred rounds; so the measured inputs correct the foretold distribution by what it misses of them, each counting for
the part of the pool that it was drawn from. The correction vanishes where the curve is right and rules where it is not.

Deleting a round at a time shows how far the result would have been another with other rounds and other inputs
(pseudo-values by round). The whole procedure is repeated each time, the choice of the curve included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.pool_distribution import CorrectedCurve, CurveFit, Distribution, SizedSamples

# Degrees of freedom of Woodruff's standard error, a sum over the samples near the percentile.
CORRECTION_DF = 16.0
# That the samples near the percentile agree does not say that no input lies elsewhere: this share of the weight of one
# sample is taken for unseen, and more where sizes explain less, since a latency far from the curve is rarely drawn.
_UNSEEN = 0.1
_UNSEEN_BY_UNEXPLAINED = 8.0
_UNSEEN_AT_MOST = 0.32
# The latter of thirty samples; of more a larger share of a smaller weight, up to all of it: what is rare is hardly
# seen sooner by a few more.
_UNSEEN_AT = 30
# What the standard error leaves out, the choice of the curve above all.
_CAUTION = 1.12
# Over how many standard errors of F the distribution is read, where sizes explain little and where they explain much
# (in between as much as they explain). Of thirty samples 1.75 lead to the largest latency, whatever the scatter is; a
# step or a rare latency beside a good curve is seen only so far away.
_REACH = (1.0, 1.75)
_REACH_EXPLAINED = (0.75, 0.88)


@dataclass(frozen=True, eq=False)
class PoolPercentile:
    """A percentile of the log latency over a pool.

    Attributes
    ----------
    by_round : float array, shape (rounds,)
        Centred pseudo-values: their mean is the percentile, and their variance over the number of rounds is the
        variance of the jackknife that deletes a round at a time. With one round, the percentile.
    by_level : float array, shape (rounds,), or None
        The percentile at the level of each round: how starts differ, without the inputs. None without a curve, where
        `by_round` is all there is.
    variance_inputs, variance_above : float
        Of the percentile, from which inputs were drawn: Woodruff's, the larger of both directions and the one upwards;
        known with `CORRECTION_DF` degrees of freedom.
    fit : CurveFit
        How well sizes tell the latencies apart.
    """

    by_round: NDArray[np.float64]
    by_level: NDArray[np.float64] | None
    variance_inputs: float
    variance_above: float
    fit: CurveFit


@dataclass(frozen=True, eq=False)
class PoolStudy:
    """What every percentile over a pool starts from: the curves and distributions of all rounds and without each.

    `curves` and `distributions` are empty where there is no curve.
    """

    log_latency: NDArray[np.float64]
    round_position: NDArray[np.int64]
    design: SampleDesign
    curves: Sequence[CorrectedCurve]
    distributions: Sequence[Distribution]

    @classmethod
    def of(cls, log_latency: NDArray[np.float64], round_position: NDArray[np.int64], design: SampleDesign) -> Self:
        """Fit the curves, which takes nearly all of the time that a percentile takes.

        Parameters
        ----------
        log_latency : float array, shape (samples,)
        round_position : int array, shape (samples,)
            From 0; every round has a sample that is not certain.
        design : SampleDesign
            Of the samples.

        Returns
        -------
        PoolStudy
        """
        samples = SizedSamples.by_size(log_latency, round_position, design)
        if samples is None:
            return cls(log_latency, round_position, design, (), ())
        curves = samples.corrected_curves(_selections(samples.round_position, samples.certain))
        return cls(log_latency, round_position, design, curves, [curve.distribution() for curve in curves])

    def percentiles(self, percentiles: Sequence[float]) -> tuple[PoolPercentile, ...]:
        """Take percentiles over the pool and split them into pseudo-values of the rounds.

        Parameters
        ----------
        percentiles : sequence of float
            Above 0 and below 100.

        Returns
        -------
        tuple of PoolPercentile

        Notes
        -----
        F(t) = mean over the pool of G(t, x) + sum over the samples of w * (1(y <= t) - G(t, x)), made monotone, with
        G(t, x) the share of the residuals of the neighbours in size that keep the curve at x at or below t, and w the
        part of the pool that a sample stands for: Rao, Kovar and Mantel's difference estimator. It is design-consistent
        in the number of rounds, whatever the curve misses. Residuals are scaled for the parameters that the fit has
        used.

        Few replicates of a quantile know its variance badly, and see no jump that few inputs straddle. The jackknife is
        therefore not what a promise rests on. Its variance has two parts: how the levels of the rounds differ, and
        Woodruff's: how far the quantile moves when F does by standard errors of the correction (`_REACH`), of which a
        part of one sample's weight is for what no sample has seen. An upper bound asks how far it moves up: a step just
        below the percentile is no reason why it may be higher.

        Without sizes, or with too few samples for a curve, weighted percentiles are taken of latencies less the mean of
        their round.

        References
        ----------
        J. N. K. Rao, J. G. Kovar and H. J. Mantel, On estimating distribution functions and quantiles from survey data
        using auxiliary information, Biometrika 77 (1990). R. S. Woodruff, Confidence intervals for medians and other
        position measures, Journal of the American Statistical Association 47 (1952). P. C. Mahalanobis, Recent
        experiments in statistical sampling in the Indian Statistical Institute, Journal of the Royal Statistical
        Society 109 (1946). K. M. Wolter, Introduction to Variance Estimation, 2nd edition (2007), chapters 2 and 4.
        """
        shares = np.asarray(percentiles, dtype=np.float64) / 100
        if not self.curves:
            replicates = _weighted(self.log_latency, self.round_position, shares, self.design)
            by_rounds = _pseudo_values(replicates)
            return tuple(PoolPercentile(by_round, None, 0.0, 0.0, CurveFit()) for by_round in by_rounds)
        rounds = int(self.round_position.max()) + 1
        of_curves = [
            distribution.quantiles(shares) + curve.common_level
            for distribution, curve in zip(self.distributions, self.curves, strict=True)
        ]
        by_rounds, curve = _pseudo_values(np.array(of_curves)), self.curves[0]
        fit, around = curve.fit(), curve.level - curve.common_level
        moves = np.zeros((2, shares.size))
        # One round says nothing of how rounds differ, and has no bounds.
        if rounds > 1:
            unseen = _unseen(fit, samples=int(np.count_nonzero(~self.design.certain)))
            reach = float(np.interp(fit.explained, _REACH_EXPLAINED, _REACH))
            moves = _woodruff(curve, self.distributions[0], shares, unseen, reach)
        # The mean residual moves the levels and the quantile alike, and counts once. Where sizes explain little,
        # residuals are bands rather than noise, and their mean says less of a quantile.
        twice = fit.explained * curve.level_variance
        variance = np.maximum(moves**2 - twice, 0.0)
        return tuple(
            PoolPercentile(by_round, of_curves[0][place] + around, float(either.max()), float(either[0]), fit)
            for place, (by_round, either) in enumerate(zip(by_rounds, variance.T, strict=True))
        )


def weighted_percentiles(
    values: NDArray[np.float64], weight: NDArray[np.float64], percentiles: Sequence[float]
) -> NDArray[np.float64]:
    """Take percentiles of weighted values, linear between the middles of their shares, shape (percentiles,).

    Type 5 of Hyndman and Fan with weights: type 7 would take the smallest and the largest of ten inputs for the ends of
    the pool.

    References
    ----------
    R. J. Hyndman and Y. Fan, Sample quantiles in statistical packages, The American Statistician 50 (1996).

    Examples
    --------
    >>> weighted_percentiles(np.array([1.0, 3.0]), np.array([1.0, 1.0]), [25, 50, 99]).tolist()
    [1.0, 2.0, 3.0]
    """
    order = np.argsort(values, kind="stable")
    share = weight[order] / weight.sum()
    middle = np.cumsum(share) - share / 2
    return np.interp(np.asarray(percentiles, dtype=np.float64) / 100, middle, values[order])


def _pseudo_values(replicates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return pseudo-values, shape (percentiles, rounds), of results with all rounds and without each of them."""
    everything, deleted = replicates[:1].T, replicates[1:].T
    rounds = deleted.shape[1]
    if rounds < 2:
        return everything
    return np.asarray(everything + (rounds - 1) * (deleted.mean(axis=1, keepdims=True) - deleted), dtype=np.float64)


def _selections(round_position: NDArray[np.int64], certain: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return all samples, then those without each round, of which the certain inputs stay."""
    rounds = int(round_position.max()) + 1
    everything = np.ones(round_position.size, dtype=np.bool_)
    if rounds < 2:
        return [everything]
    return [everything, *((round_position != position) | certain for position in range(rounds))]


def _weighted(
    log_latency: NDArray[np.float64],
    round_position: NDArray[np.int64],
    shares: NDArray[np.float64],
    design: SampleDesign,
) -> NDArray[np.float64]:
    """Return weighted percentiles of every selection, shape (selections, percentiles)."""
    drawn = ~design.certain
    counts = np.bincount(round_position[drawn])
    level = np.bincount(round_position[drawn], log_latency[drawn]) / counts
    above = log_latency - level[round_position]
    replicates = []
    for selection in _selections(round_position, design.certain):
        kept = np.unique(round_position[selection & drawn])
        # A certain input counts once, whatever the number of rounds.
        weight = np.where(design.certain, design.weight * kept.size, design.weight)[selection]
        replicates.append(weighted_percentiles(above[selection], weight, (100 * shares).tolist()) + level[kept].mean())
    return np.array(replicates)


def _unseen(fit: CurveFit, *, samples: int) -> float:
    """Return how much of a sample's weight may lie where no sample was drawn."""
    rare = min(_UNSEEN_BY_UNEXPLAINED * (1 - fit.explained), _UNSEEN_AT_MOST - _UNSEEN)
    return min(_UNSEEN + rare * max(samples / _UNSEEN_AT, 1.0), 1.0)


def _woodruff(
    curve: CorrectedCurve, distribution: Distribution, shares: NDArray[np.float64], unseen: float, reach: float
) -> NDArray[np.float64]:
    """Return how far a standard error of F moves each quantile up and down, shape (2, quantiles).

    It is the mean over as many standard errors as `reach`.
    """
    at = distribution.quantiles(shares)
    errors = np.array([curve.standard_error(value, unseen) for value in at.tolist()])
    error = _CAUTION * reach * errors
    up = distribution.quantiles(np.minimum(shares + error, 1)) - at
    down = at - distribution.quantiles(np.maximum(shares - error, 0))
    return np.array([up, down]) / reach
