"""Percentiles of the whole pool from rounds that each measured a few of its inputs.

What is inferred is a *typical start* on *this pool*: the latency at the mean level of all rounds, over all inputs and
not only over those that were drawn. Sizes of all inputs are known, so a curve of latency over size foretells the
distribution over the pool. A curve may be wrong, by a step or a second format, and a wrong one is as wrong after a
hundred rounds; so the measured inputs correct the foretold distribution by what it misses of them, each counting for
the part of the pool that it was drawn from. The correction vanishes where the curve is right and rules where it is not.

Deleting a round at a time shows how far the result would have been another with other rounds and other inputs
(pseudo-values by round). The whole procedure is repeated each time, the choice of the curve included.

Rounds start faster or slower, so that each has a level of its own beside the curve, which is fitted to all of them
together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.input_draw import SampleDesign

# Of thirty samples; more samples carry more.
_KNOTS = 5
_KNOTS_AT = 30
_KNOTS_POWER = 0.35
# The outermost knots: beyond them the curve is a line, so that a few odd sizes do not bend it.
_OUTERMOST = 0.02
# From hardly any smoothing to a straight line; which of them is used, generalized cross-validation says.
_PENALTIES = np.concatenate([[1e-6], np.geomspace(1e-4, 1e3, 8)])
_SMALLEST_RIDGE = 1e-9


@dataclass(frozen=True, eq=False)
class CurveBasis:
    """Functions of the log size that a curve is made of: a line, and cubic pieces that are lines beyond the last knots.

    Attributes
    ----------
    knots : float array, shape (knots,)
        Ascending, of the log size, scaled to 0 for the smallest and 1 for the largest input of the pool.
    smallest, span : float
        Of the log sizes.
    """

    knots: NDArray[np.float64]
    smallest: float
    span: float

    @classmethod
    def of_pool(cls, log_size: NDArray[np.float64], *, samples: int) -> Self | None:
        """Choose knots for ascending log sizes of a pool; None where all inputs have one size."""
        smallest, span = float(log_size[0]), float(log_size[-1] - log_size[0])
        if not span > 0:
            return None
        count = round(_KNOTS * max(samples / _KNOTS_AT, 1.0) ** _KNOTS_POWER)
        places = np.linspace(_OUTERMOST, 1 - _OUTERMOST, count) * (log_size.size - 1)
        # Many inputs of one size would be several knots at one place.
        return cls(np.unique((log_size[places.round().astype(np.int64)] - smallest) / span), smallest, span)

    def columns(self, log_size: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the functions at these sizes, shape (sizes, functions): the line first."""
        scaled = (log_size - self.smallest) / self.span
        if self.knots.size < 3:
            return scaled[:, np.newaxis]
        # Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd edition, equations 5.4 and 5.5.
        cubes = np.maximum(scaled[:, np.newaxis] - self.knots, 0) ** 3
        pieces = (cubes[:, :-1] - cubes[:, -1:]) / (self.knots[-1] - self.knots[:-1])
        return np.concatenate([scaled[:, np.newaxis], pieces[:, :-1] - pieces[:, -1:]], axis=1)


@dataclass(frozen=True, eq=False)
class SizeCurve:
    """A fitted curve with the level of each round.

    Attributes
    ----------
    coefficients : float array, shape (functions,)
    level : float array, shape (rounds,)
        Zero of a round without samples.
    freedom : float
        How many parameters the fit has effectively used.
    """

    coefficients: NDArray[np.float64]
    level: NDArray[np.float64]
    freedom: float


def fit_size_curves(
    log_latency: NDArray[np.float64],
    round_position: NDArray[np.int64],
    columns: NDArray[np.float64],
    selections: Sequence[NDArray[np.bool_]],
) -> list[SizeCurve]:
    """Fit a curve and the levels of the rounds to each selection of the samples.

    Parameters
    ----------
    log_latency : float array, shape (samples,)
    round_position : int array, shape (samples,)
    columns : float array, shape (samples, functions)
        Of `CurveBasis`, the line first.
    selections : sequence of bool array, shape (samples,)
        Each with at least one sample.

    Returns
    -------
    list of SizeCurve

    Notes
    -----
    Least squares with a penalty on all functions but the line, of the size that generalized cross-validation prefers
    for the selection. The mean of a round would not do for its level: it depends on the inputs that the round drew.

    References
    ----------
    G. H. Golub, M. Heath and G. Wahba, Generalized cross-validation as a method for choosing a good ridge parameter,
    Technometrics 21 (1979).
    """
    joint = np.concatenate([columns, log_latency[:, np.newaxis]], axis=1)
    rounds = int(round_position.max()) + 1
    means = np.zeros((len(selections), rounds, joint.shape[1]))
    products = np.zeros((len(selections), joint.shape[1], joint.shape[1]))
    counts = np.zeros((len(selections), rounds))
    for row, selection in enumerate(selections):
        number, own = round_position[selection], joint[selection]
        counts[row] = np.bincount(number, minlength=rounds)
        # By column, which gives the sums of `np.add.at` in a third of its time.
        sums = np.stack([np.bincount(number, column, rounds) for column in own.T], axis=1)
        means[row] = sums / np.maximum(counts[row], 1)[:, np.newaxis]
        # The levels are fitted by leaving the mean of each round out of everything else.
        centred = own - means[row, number]
        products[row] = centred.T @ centred
    coefficients, freedom = _penalized(products, counts.sum(axis=1), (counts > 0).sum(axis=1))
    return [
        SizeCurve(own, (mean[:, -1] - mean[:, :-1] @ own) * (count > 0), float(used))
        for own, mean, count, used in zip(coefficients, means, counts, freedom, strict=True)
    ]


def _penalized(
    products: NDArray[np.float64], samples: NDArray[np.float64], levels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coefficients of the best penalty and the parameters used, a row for each matrix of cross products."""
    gram, target, square = products[:, :-1, :-1], products[:, :-1, -1], products[:, -1, -1]
    functions = gram.shape[1]
    curved = np.diag(np.r_[0.0, np.ones(functions - 1)])
    scale = np.trace(gram, axis1=1, axis2=2).clip(_SMALLEST_RIDGE)
    # Samples of one size would leave the matrix without an inverse.
    ridge = _SMALLEST_RIDGE * scale[:, np.newaxis, np.newaxis] * np.eye(functions)
    inverse = np.linalg.inv((gram + ridge)[:, np.newaxis] + _PENALTIES[:, np.newaxis, np.newaxis] * curved)
    coefficients = (inverse @ target[:, np.newaxis, :, np.newaxis])[..., 0]
    explained = 2 * (coefficients * target[:, np.newaxis]).sum(axis=-1)
    explained -= ((coefficients @ gram) * coefficients).sum(axis=-1)
    freedom = levels[:, np.newaxis] + (inverse * gram[:, np.newaxis]).sum(axis=(2, 3))
    left = np.maximum(samples[:, np.newaxis] - freedom, 0.5)
    score = np.maximum(square[:, np.newaxis] - explained, 1e-18) / left**2
    best, row = score.argmin(axis=1), np.arange(len(products))
    return coefficients[row, best], freedom[row, best]


# Residuals come from this many samples of nearly the size: a throttled tier has two bands, a normal error has one.
_NEIGHBOURS = 15
# The pool is large and smooth: this many of its inputs, evenly spread by size, stand for all.
_POOL_POINTS = 256
# The samples that a fit without one round needs beyond its levels; with fewer there is no curve.
_FEWEST_BEYOND_LEVELS = 8
# A measured latency counts as spread over so much of its neighbours' residuals: a single latency would make the
# distribution a staircase, whose jackknife knows its variance badly. It narrows as samples are added.
_SPREAD = 0.7
_SPREAD_AT = 30
_SPREAD_POWER = 1 / 3
# Above this quantile of the sizes few inputs are drawn, and the highest percentiles are decided.
_TAIL_ABOVE = 0.97


@dataclass(frozen=True)
class CurveFit:
    """How well sizes tell latencies apart.

    Attributes
    ----------
    explained : float
        The share of the variance of the log latency over inputs that their sizes explain; 0 where sizes are unknown.
    tail_inputs : int
        Distinct sizes measured among the three percent of largest inputs.
    tail_clarity : float
        By how many standard deviations of their residuals the curve rises there.
    """

    explained: float = 0.0
    tail_inputs: int = 0
    tail_clarity: float = 0.0


@dataclass(frozen=True, eq=False)
class Distribution:
    """Values in ascending order with the share of the pool at or below each."""

    values: NDArray[np.float64]
    share: NDArray[np.float64]

    @classmethod
    def of(cls, values: Sequence[NDArray[np.float64]], weights: Sequence[NDArray[np.float64]]) -> Self:
        """Add up values with weights that may be negative; the sum is made monotone."""
        joined = np.concatenate(values)
        order = np.argsort(joined)
        share = np.cumsum(np.concatenate(weights)[order])
        rising = np.maximum.accumulate(share)
        falling = np.minimum.accumulate(share[::-1])[::-1]
        return cls(joined[order], (rising + falling) / 2)

    def quantiles(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the smallest values with at least these shares."""
        return self.values[np.minimum(np.searchsorted(self.share, shares), self.values.size - 1)]


@dataclass(frozen=True, eq=False)
class SizedSamples:
    """Samples in ascending order of size, with what a curve is made of at them and over the pool.

    Sizes above `tail_from` are in the tail of the pool.
    """

    log_latency: NDArray[np.float64]
    round_position: NDArray[np.int64]
    weight: NDArray[np.float64]
    certain: NDArray[np.bool_]
    log_size: NDArray[np.float64]
    pool_log_size: NDArray[np.float64]
    tail_from: float
    basis: CurveBasis

    @classmethod
    def by_size(
        cls, log_latency: NDArray[np.float64], round_position: NDArray[np.int64], design: SampleDesign
    ) -> Self | None:
        """Sort the samples; None where there is no curve to be fitted."""
        if design.size is None or design.pool_size is None:
            return None
        drawn = np.bincount(round_position[~design.certain])
        least = drawn.sum() if drawn.size < 2 else drawn.sum() - drawn.max()
        if least - max(drawn.size - 1, 1) < _FEWEST_BEYOND_LEVELS:
            return None
        # The pool is evenly spread by size, in the middle of equal parts.
        points = min(_POOL_POINTS, design.pool_size.size)
        places = ((np.arange(points) + 0.5) / points * design.pool_size.size).astype(np.int64)
        basis = CurveBasis.of_pool(np.log1p(design.pool_size), samples=int(drawn.sum()))
        if basis is None:
            return None
        order = np.argsort(design.size, kind="stable")
        pool_log_size = np.log1p(design.pool_size[places])
        return cls(
            log_latency[order],
            round_position[order],
            design.weight[order],
            design.certain[order],
            np.log1p(design.size[order]),
            pool_log_size,
            float(np.quantile(pool_log_size, _TAIL_ABOVE)),
            basis,
        )

    def corrected_curves(self, selections: Sequence[NDArray[np.bool_]]) -> list["CorrectedCurve"]:
        """Fit a curve to each selection of the samples."""
        columns, pool_columns = self.basis.columns(self.log_size), self.basis.columns(self.pool_log_size)
        curves = fit_size_curves(self.log_latency, self.round_position, columns, selections)
        return [
            CorrectedCurve.of(self, curve, selection, columns, pool_columns)
            for curve, selection in zip(curves, selections, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class CorrectedCurve:
    """A curve over the pool, and what the samples of one selection say it misses.

    `expected`, `residual`, `weight` and `neighbours` are of the samples: what the curve says, by how much it errs, the
    part of the pool, and the residuals of the neighbours. `pool_expected` and `pool_neighbours` are of the pool, and
    `level` is of the selected rounds.
    """

    expected: NDArray[np.float64]
    residual: NDArray[np.float64]
    weight: NDArray[np.float64]
    neighbours: NDArray[np.float64]
    pool_expected: NDArray[np.float64]
    pool_neighbours: NDArray[np.float64]
    level: NDArray[np.float64]
    spread: float
    log_size: NDArray[np.float64]
    tail_from: float

    @classmethod
    def of(
        cls,
        samples: SizedSamples,
        curve: SizeCurve,
        selection: NDArray[np.bool_],
        columns: NDArray[np.float64],
        pool_columns: NDArray[np.float64],
    ) -> Self:
        """Take the residuals of the selected samples around their curve."""
        number, certain = samples.round_position[selection], samples.certain[selection]
        kept = np.unique(number[~certain])
        expected = columns[selection] @ curve.coefficients
        residual = samples.log_latency[selection] - curve.level[number] - expected
        # A fit with as many parameters as samples would leave no residuals at all.
        residual *= np.sqrt(residual.size / max(residual.size - curve.freedom, 1.0))
        # The rounds share what is not certain; a certain input counts once.
        weight = np.where(certain, samples.weight[selection] * kept.size, samples.weight[selection])
        size = samples.log_size[selection]
        nearby = np.lib.stride_tricks.sliding_window_view(residual, min(_NEIGHBOURS, residual.size))
        return cls(
            expected=expected,
            residual=residual,
            weight=weight / weight.sum(),
            neighbours=nearby[_first_neighbour(size, size)],
            pool_expected=pool_columns @ curve.coefficients,
            pool_neighbours=nearby[_first_neighbour(size, samples.pool_log_size)],
            level=curve.level[kept],
            spread=_SPREAD * (_SPREAD_AT / np.count_nonzero(~samples.certain)) ** _SPREAD_POWER,
            log_size=size,
            tail_from=samples.tail_from,
        )

    # Kept, as all that no percentile changes: one after another is asked for.
    @cached_property
    def common_level(self) -> float:
        """The mean level of the rounds."""
        return float(self.level.mean())

    @cached_property
    def level_variance(self) -> float:
        """The variance of the common level from the residuals of the samples."""
        return float(self.weight @ self.residual**2 * (self.weight @ self.weight))

    def distribution(self) -> Distribution:
        """Return the distribution over the pool at the common level."""
        around = self.neighbours - self.neighbours.mean(axis=1, keepdims=True)
        foretold = self.pool_expected[:, np.newaxis] + self.pool_neighbours
        measured = (self.expected + self.residual)[:, np.newaxis] + self.spread * around
        # The samples as the curve foretells them, spread like the measured ones, so that they cancel on average.
        expected = self.expected[:, np.newaxis] + self.neighbours + (np.hypot(1, self.spread) - 1) * around
        weight = np.repeat(self.weight / self.neighbours.shape[1], self.neighbours.shape[1])
        return Distribution.of(
            [foretold.ravel(), measured.ravel(), expected.ravel()],
            [np.full(foretold.size, 1 / foretold.size), weight, -weight],
        )

    def standard_errors(self, values: NDArray[np.float64], unseen: float) -> NDArray[np.float64]:
        """Return the standard error of the share at or below each value, from the samples' residuals near it.

        `unseen` is how much of the weight of such a sample may lie where none was drawn.
        """
        around = self.neighbours - self.neighbours.mean(axis=1, keepdims=True)
        latency = self.expected[:, np.newaxis] + self.neighbours
        # Spread first, because whole planes are counted in a fraction of the time of their last axis.
        spread = latency + (self.spread * around).T[:, :, np.newaxis]
        return np.array([self._standard_error(spread, value, unseen) for value in values.tolist()])

    def _standard_error(self, spread: NDArray[np.float64], value: float, unseen: float) -> float:
        below = np.add.reduce((spread <= value).view(np.int8), axis=0, dtype=np.int8)
        variance = (below / spread.shape[0]).var(axis=1)
        # Of the samples that may lie on either side: those of an oversampled tail weigh less than the others.
        near = float(self.weight @ variance / total) if (total := variance.sum()) > 0 else float(self.weight.max())
        return float(np.hypot(np.sqrt(self.weight**2 @ variance), unseen * near))

    @cached_property
    def fit(self) -> CurveFit:
        """Return how well sizes tell the latencies apart."""
        latency = self.expected + self.residual
        total = float(self.weight @ (latency - self.weight @ latency) ** 2)
        explained = 1 - float(self.weight @ self.residual**2) / total if total > 0 else 0.0
        tail = self.log_size > self.tail_from
        if not tail.any():
            return CurveFit(max(explained, 0.0))
        rise = float(self.pool_expected[-1] - self.pool_expected[int(_TAIL_ABOVE * self.pool_expected.size)])
        # Latencies without any scatter, of equal inputs say, must not divide by zero.
        scatter = max(float(np.sqrt((self.residual[tail] ** 2).mean())), np.finfo(np.float64).tiny)
        return CurveFit(max(explained, 0.0), int(np.unique(self.log_size[tail]).size), rise / scatter)


def _first_neighbour(log_size: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return where the window of the nearest samples begins for each place, sizes ascending."""
    width = min(_NEIGHBOURS, log_size.size)
    return np.clip(np.searchsorted(log_size, places) - width // 2, 0, log_size.size - width)


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
        fit, around = curve.fit, curve.level - curve.common_level
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
    # Each percentile's own side by side, so that sums do not depend on how many percentiles there are.
    everything, deleted = replicates[:1].T, np.ascontiguousarray(replicates[1:].T)
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
    error = _CAUTION * reach * curve.standard_errors(at, unseen)
    up = distribution.quantiles(np.minimum(shares + error, 1)) - at
    down = at - distribution.quantiles(np.maximum(shares - error, 0))
    return np.array([up, down]) / reach
