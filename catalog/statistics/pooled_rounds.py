"""Percentiles over rounds that have drawn their own inputs, as pseudo-values by round.

Ten inputs of one round say little about a 90th percentile; those of all rounds together say more. The rounds are moved
to a common level, their samples are weighed by what they stand for, and deleting a round at a time shows how far the
result would have been another with other rounds and other inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Of the curve of latency over size that tells the levels of rounds apart.
_LARGEST_DEGREE = 3
_SAMPLES_PER_DEGREE = 5


@dataclass(frozen=True, eq=False)
class SampleDesign:
    """What samples of rounds that draw their inputs stand for.

    Attributes
    ----------
    weight : float array, shape (samples,)
        Above zero: how much of the pool each sample of a round stands for.
    certain : bool array, shape (samples,)
        Samples of inputs that are measured in one round and stand for themselves alone.
    size : float array, shape (samples,), or None
        Of the inputs, at or above zero in any unit, which tells what a round is slower by from what its inputs are
        larger by; None where it was not stored.

    Raises
    ------
    ValueError
        For values out of range, or arrays of different lengths.
    """

    weight: NDArray[np.float64]
    certain: NDArray[np.bool_]
    size: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        sizes = self.weight if self.size is None else self.size
        if not self.weight.shape == self.certain.shape == sizes.shape:
            raise ValueError(
                f"there is one weight, certainty and size per sample, got shapes {self.weight.shape}, "
                f"{self.certain.shape} and {sizes.shape}"
            )
        if not np.all(np.isfinite(self.weight) & (self.weight > 0)):
            raise ValueError("a weight is a finite number above zero")
        if not np.all(np.isfinite(sizes) & (sizes >= 0)):
            raise ValueError("a size is a finite number at or above zero")

    def of(self, samples: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Return the design of some of the samples, by position or by mask."""
        size = None if self.size is None else self.size[samples]
        return type(self)(self.weight[samples], self.certain[samples], size)


def pooled_log_percentiles(
    log_latency: NDArray[np.float64],
    round_position: NDArray[np.int64],
    percentiles: Sequence[float],
    *,
    design: SampleDesign,
) -> NDArray[np.float64]:
    """Take percentiles over all rounds together and split them into pseudo-values of the rounds.

    Parameters
    ----------
    log_latency : float array, shape (samples,)
    round_position : int array, shape (samples,)
        From 0; every round has a sample that is not certain.
    percentiles : sequence of float
        Above 0 and below 100.
    design : SampleDesign
        Of the samples.

    Returns
    -------
    float array, shape (percentiles, rounds)
        Centred pseudo-values: their mean is the percentile, and their variance over the number of rounds is the
        variance of the jackknife that deletes a round at a time. With one round, the percentile.

    Notes
    -----
    The variance across interpenetrating samples holds that of the choice of inputs, so that nothing is resampled. A
    typical start is meant, hence the common level; without it, rounds that differ would widen the distribution.

    References
    ----------
    P. C. Mahalanobis, Recent experiments in statistical sampling in the Indian Statistical Institute, Journal of the
    Royal Statistical Society 109 (1946). K. M. Wolter, Introduction to Variance Estimation, 2nd edition (2007),
    chapters 2 and 4.
    """
    rounds, weight, certain, size = int(round_position.max()) + 1, design.weight, design.certain, design.size
    level = _levels(log_latency, round_position, size, ~certain)
    # The level of a certain input's round stays that of all rounds, whichever round is deleted.
    certain_above = (log_latency - level[round_position])[certain]

    def without(position: int | None) -> NDArray[np.float64]:
        drawn = ~certain if position is None else ~certain & (round_position != position)
        kept = np.unique(round_position[drawn])
        kept_level = level if position is None else _levels(log_latency, round_position, size, drawn)
        values = np.concatenate([(log_latency - kept_level[round_position])[drawn], certain_above])
        # The rounds share what is not certain; a certain input counts once.
        shares = np.concatenate([weight[drawn] / kept.size, weight[certain]])
        common = float(kept_level[kept].mean())
        return np.asarray(weighted_percentiles(values, shares, percentiles) + common, dtype=np.float64)

    everything: NDArray[np.float64] = without(None)[:, np.newaxis]
    if rounds < 2:
        return everything
    deleted = np.stack([without(position) for position in range(rounds)], axis=1)
    return np.asarray(everything + (rounds - 1) * (deleted.mean(axis=1, keepdims=True) - deleted), dtype=np.float64)


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


def _levels(
    log_latency: NDArray[np.float64],
    round_position: NDArray[np.int64],
    size: NDArray[np.float64] | None,
    members: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Fit the log latency of the members by a level per round and a polynomial of the log size; return the levels.

    The mean of a round would not do: it depends on the inputs that the round has drawn.
    """
    number, values = round_position[members], log_latency[members]
    rounds = int(round_position.max()) + 1
    columns = [np.eye(rounds)[number]]
    if size is not None:
        log_size = np.log1p(size[members])
        # Few samples cannot carry a curve besides the levels.
        degree = min(_LARGEST_DEGREE, max(0, values.size - rounds) // _SAMPLES_PER_DEGREE)
        scale = log_size.std() or 1.0
        columns.append(np.vander((log_size - log_size.mean()) / scale, degree + 1, increasing=True)[:, 1:])
    # A round without members has no level: the solution of least norm gives it zero, and nothing reads it.
    fitted, *_ = np.linalg.lstsq(np.hstack(columns), values, rcond=None)
    return fitted[:rounds].astype(np.float64)
