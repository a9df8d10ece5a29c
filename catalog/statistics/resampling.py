"""Percentiles within rounds, and the same percentiles when the inputs are resampled.

Inputs are shared by all rounds and all strategies of a subject, so one draw of inputs (how often each is taken) is
applied to every round of every strategy. A draw then costs no sorting: each round is sorted once, the counts of a draw
are summed along that order, and a percentile is where the sum passes its rank.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.samples import Samples

# Counts in memory at once, whatever the number of samples: 16 MB of 32-bit sums.
_CHUNK = 4_000_000


def draw_inputs(inputs: int, *, n_resamples: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Draw inputs with replacement.

    Parameters
    ----------
    inputs : int
        How many there are; at least 1.
    n_resamples : int
        How many draws of as many inputs; at least 2.
    rng : numpy.random.Generator

    Returns
    -------
    int array, shape (inputs, n_resamples)
        How often each input is in each draw; every column sums to `inputs`.

    Raises
    ------
    ValueError
        For fewer.

    Examples
    --------
    >>> draw_inputs(5, n_resamples=3, rng=np.random.default_rng(1)).sum(axis=0)
    array([5, 5, 5])
    """
    if inputs < 1 or n_resamples < 2:
        raise ValueError(f"at least 1 input and 2 resamples are needed, got {inputs} and {n_resamples}")
    # One bincount over (resample, input) numbers instead of one per resample.
    drawn = rng.integers(inputs, size=(inputs, n_resamples)) + np.arange(n_resamples) * inputs
    counts = np.bincount(drawn.ravel(), minlength=inputs * n_resamples).astype(np.int32)
    return np.ascontiguousarray(counts.reshape(n_resamples, inputs).T)


def log_percentiles(samples: Samples, percentiles: Sequence[float]) -> NDArray[np.float64]:
    """Take percentiles of the log latency within each round.

    Parameters
    ----------
    samples : Samples
    percentiles : sequence of float
        Above 0 and below 100.

    Returns
    -------
    float array, shape (percentiles, rounds)

    Raises
    ------
    ValueError
        For a percentile outside that range.

    Notes
    -----
    Over all repetitions of all inputs of the round; linear between order statistics (Hyndman and Fan's type 7) of the
    logarithm.

    Examples
    --------
    >>> samples = Samples.from_arrays([1.0, 100.0, 1.0, 10000.0], [1, 1, 2, 2], [0, 1, 0, 1])
    >>> np.exp(log_percentiles(samples, [50])).round(6)
    array([[ 10., 100.]])
    """
    check_percentiles(percentiles)
    by_round = [
        np.percentile(samples.log_latency[samples.round_position == position], percentiles)
        for position in range(samples.rounds.size)
    ]
    return np.stack(by_round, axis=1).astype(np.float64)


def resampled_log_percentiles(
    samples: Samples, percentiles: Sequence[float], *, counts: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Take the percentiles of `log_percentiles` for each draw of inputs.

    Parameters
    ----------
    samples : Samples
    percentiles : sequence of float
        Above 0 and below 100.
    counts : int array, shape (inputs, n_resamples)
        From `draw_inputs`, a row for each of `samples.inputs`.

    Returns
    -------
    float array, shape (percentiles, rounds, n_resamples)
        NaN where a draw holds no input that the round has (possible only with missing cells).

    Raises
    ------
    ValueError
        For a percentile outside its range or counts of another number of inputs.

    Notes
    -----
    The same draw is applied to all rounds. O(samples x n_resamples) in time, bounded in memory.

    Examples
    --------
    >>> samples = Samples.from_arrays([1.0, 4.0, 9.0], [1, 1, 1], [0, 1, 2])
    >>> drawn = resampled_log_percentiles(samples, [50], counts=np.array([[1, 0], [1, 1], [1, 2]]))
    >>> np.exp(drawn[0, 0]).round(6)
    array([4., 9.])
    """
    check_percentiles(percentiles)
    if counts.ndim != 2 or counts.shape[0] != samples.inputs.size:
        raise ValueError(f"counts has a row for each of {samples.inputs.size} inputs, got shape {counts.shape}")
    out = np.empty((len(percentiles), samples.rounds.size, counts.shape[1]))
    for position in range(samples.rounds.size):
        own = np.flatnonzero(samples.round_position == position)
        # Sorted once per round; a draw then only weights the sorted values, so no resample is sorted.
        own = own[np.argsort(samples.log_latency[own], kind="stable")]
        step = max(1, _CHUNK // own.size)
        for start in range(0, counts.shape[1], step):
            window = slice(start, start + step)
            drawn = counts[samples.input_position[own], window]
            out[:, position, window] = _weighted(samples.log_latency[own], drawn, percentiles)
    return out


def _weighted(
    ascending: NDArray[np.float64], counts: NDArray[np.integer], percentiles: Sequence[float]
) -> NDArray[np.float64]:
    """Return the type 7 of a sample with each value `counts` times, shape (percentiles, n_resamples)."""
    # 32 bits, as `_CHUNK` reckons; numpy would sum in 64.
    passed = np.cumsum(counts, axis=0, dtype=np.int32)
    total = passed[-1].astype(np.int64)
    out = np.empty((len(percentiles), counts.shape[1]))
    for row, percentile in enumerate(percentiles):
        # Type 7 of Hyndman and Fan (1996), numpy's default, so that a draw of every input once is the estimate itself.
        rank = np.maximum(total - 1, 0) * (percentile / 100)
        below = np.floor(rank).astype(np.int32)
        above = np.minimum(below + 1, np.maximum(total - 1, 0)).astype(np.int32)
        # The value of rank r is the first whose running count exceeds r; in an empty draw none does.
        low, high = (
            ascending[np.minimum((passed <= which).sum(axis=0), ascending.size - 1)] for which in (below, above)
        )
        out[row] = np.where(total > 0, low + (rank - below) * (high - low), np.nan)
    return out


def check_percentiles(percentiles: ArrayLike) -> None:
    """Raise ValueError for percentiles that can have no interval."""
    levels = np.atleast_1d(np.asarray(percentiles, dtype=np.float64))
    if not levels.size or not np.all((levels > 0) & (levels < 100)):
        raise ValueError(f"a percentile is above 0 and below 100, got {percentiles!r}")
