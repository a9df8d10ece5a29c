"""The distribution of latency over a pool: what a curve over size foretells, corrected by what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.size_curve import CurveBasis, SizeCurve, fit_size_curves

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
    """Samples in ascending order of size, with what a curve is made of at them and over the pool."""

    log_latency: NDArray[np.float64]
    round_position: NDArray[np.int64]
    weight: NDArray[np.float64]
    certain: NDArray[np.bool_]
    log_size: NDArray[np.float64]
    pool_log_size: NDArray[np.float64]
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
        return cls(
            log_latency[order],
            round_position[order],
            design.weight[order],
            design.certain[order],
            np.log1p(design.size[order]),
            np.log1p(design.pool_size[places]),
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
            tail_from=float(np.quantile(samples.pool_log_size, _TAIL_ABOVE)),
        )

    @property
    def common_level(self) -> float:
        """The mean level of the rounds."""
        return float(self.level.mean())

    @property
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

    def standard_error(self, value: float, unseen: float) -> float:
        """Return the standard error of the share at or below a value, from the samples' residuals near it.

        `unseen` is how much of the weight of such a sample may lie where none was drawn.
        """
        around = self.neighbours - self.neighbours.mean(axis=1, keepdims=True)
        latency = self.expected[:, np.newaxis] + self.neighbours
        share = (latency[:, :, np.newaxis] + self.spread * around[:, np.newaxis] <= value).mean(axis=2)
        variance = share.var(axis=1)
        # Of the samples that may lie on either side: those of an oversampled tail weigh less than the others.
        near = float(self.weight @ variance / total) if (total := variance.sum()) > 0 else float(self.weight.max())
        return float(np.hypot(np.sqrt(self.weight**2 @ variance), unseen * near))

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
