"""The latencies of one strategy as crossed rounds and inputs, from which every deciding analysis starts.

Repetitions stay: a percentile is taken over all repetitions of all inputs within a round, because a request is one
repetition and not a mean of five. They are nested in (round, input) and therefore never resampled on their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Samples:
    """Log latencies with the round and the input of each.

    Build it with `from_arrays`, which validates.

    Attributes
    ----------
    log_latency : float array, shape (samples,)
        Natural logarithm of seconds.
    round_position, input_position : int array, shape (samples,)
        Into `rounds` and `inputs`.
    rounds : int array, shape (rounds,)
        The distinct round numbers, ascending.
    inputs : int array, shape (inputs,)
        The distinct input indices, ascending; strategies pair by them.

    Examples
    --------
    >>> samples = Samples.from_arrays([0.1, 0.2, 0.1, 0.4], [1, 1, 2, 2], [0, 7, 0, 7])
    >>> samples.rounds.tolist(), samples.inputs.tolist(), samples.fewest_inputs
    ([1, 2], [0, 7], 2)
    """

    log_latency: NDArray[np.float64]
    round_position: NDArray[np.int64]
    input_position: NDArray[np.int64]
    rounds: NDArray[np.int64]
    inputs: NDArray[np.int64]

    @classmethod
    def from_arrays(cls, latency_s: ArrayLike, round_number: ArrayLike, input_index: ArrayLike) -> Self:
        """Take flat arrays, one entry per sample, in any order.

        Parameters
        ----------
        latency_s : array_like of float, shape (samples,)
            Seconds; finite and above zero.
        round_number, input_index : array_like of int, shape (samples,)
            Of each sample. Several samples of one round and input are its repetitions.

        Returns
        -------
        Samples

        Raises
        ------
        ValueError
            For no samples, shapes that differ, round numbers or indices that are not whole numbers, and for a latency
            that is NaN, infinite, zero or negative: the first one is named with its position, round and input.
        """
        latency = np.asarray(latency_s, dtype=np.float64)
        number, index = _whole(round_number, name="round_number"), _whole(input_index, name="input_index")
        if latency.ndim != 1 or not latency.shape == number.shape == index.shape:
            raise ValueError(
                "latency_s, round_number and input_index are one-dimensional and of one length, "
                f"got shapes {latency.shape}, {number.shape} and {index.shape}"
            )
        if not latency.size:
            raise ValueError("there are no samples: at least one latency is needed")
        # Zero and below have no logarithm.
        bad = np.flatnonzero(~(np.isfinite(latency) & (latency > 0)))
        if bad.size:
            first = bad[0]
            raise ValueError(
                f"a latency is a finite number of seconds above zero, got {latency[first]} at position {first} "
                f"(round {number[first]}, input {index[first]}); {bad.size} of {latency.size} samples are not"
            )
        rounds, round_position = np.unique(number, return_inverse=True)
        inputs, input_position = np.unique(index, return_inverse=True)
        # Logs once: effects on latency multiply, and the ratio of two strategies is a difference of logs.
        return cls(np.log(latency), round_position, input_position, rounds, inputs)

    @property
    def cells(self) -> NDArray[np.int64]:
        """How many repetitions each round has of each input, shape (rounds, inputs); zero is a missing cell."""
        # One bincount over the numbers of cells instead of one per round.
        flat = self.round_position * self.inputs.size + self.input_position
        count = np.bincount(flat, minlength=self.rounds.size * self.inputs.size)
        return count.astype(np.int64).reshape(self.rounds.size, self.inputs.size)

    @property
    def fewest_inputs(self) -> int:
        """Distinct inputs of the round with the fewest: repetitions say nothing about other inputs."""
        return int((self.cells > 0).sum(axis=1).min())

    def restricted(self, *, rounds: ArrayLike, inputs: ArrayLike) -> Self:
        """Return the samples of these rounds on these inputs.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        keep = np.isin(self.rounds[self.round_position], rounds) & np.isin(self.inputs[self.input_position], inputs)
        if not keep.any():
            raise ValueError("no sample is in these rounds and on these inputs")
        # Numbered again: a round or an input without samples must not stay as an empty one.
        kept_rounds, round_position = np.unique(self.rounds[self.round_position[keep]], return_inverse=True)
        kept_inputs, input_position = np.unique(self.inputs[self.input_position[keep]], return_inverse=True)
        return type(self)(self.log_latency[keep], round_position, input_position, kept_rounds, kept_inputs)


def _whole(values: ArrayLike, *, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    # numpy makes floats of an empty list.
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} holds whole numbers, got {array.dtype}")
    return array.astype(np.int64)


# With fewer rounds an interval is very wide, so rounds with few inputs are better than none.
_FEWEST = 3


def wide_rounds(inputs: Mapping[int, int]) -> frozenset[int]:
    """Leave out the rounds over fewer than half as many inputs as the widest, where enough others remain.

    Parameters
    ----------
    inputs : mapping of int to int
        Number of distinct inputs by round.

    Returns
    -------
    frozenset of int
        All rounds where fewer than three would remain.

    Notes
    -----
    Every round weighs alike in the deciding analysis. Rounds over n inputs beside rounds over many more would keep the
    variance that comes from the choice of inputs above a quarter of what n inputs leave, however many are added.

    Examples
    --------
    >>> sorted(wide_rounds({1: 30, 2: 30, 3: 60, 4: 120, 5: 120}))
    [3, 4, 5]
    >>> sorted(wide_rounds({1: 30, 2: 120}))
    [1, 2]
    """
    widest = max(inputs.values(), default=0)
    wide = frozenset(number for number, count in inputs.items() if 2 * count >= widest)
    return wide if len(wide) >= _FEWEST else frozenset(inputs)


def percentile_by_round(values: ArrayLike, rounds: ArrayLike, percentile: float) -> NDArray[np.float64]:
    """Take a percentile within each round.

    Parameters
    ----------
    values : array_like, shape (samples,)
        In any unit, for example seconds.
    rounds : array_like of int, shape (samples,)
        The round of each value.
    percentile : float
        From 0 to 100.

    Returns
    -------
    ndarray, shape (distinct rounds,)
        In ascending order of the round; empty without samples.

    Raises
    ------
    ValueError
        For shapes that differ or a percentile outside 0 to 100.

    Notes
    -----
    Linear interpolation between order statistics (numpy's default, Hyndman and Fan's type 7). A NaN makes its round
    NaN. One sort; O(n log n).

    References
    ----------
    R. J. Hyndman and Y. Fan, Sample quantiles in statistical packages, The American Statistician 50 (1996).

    Examples
    --------
    >>> percentile_by_round([1.0, 3.0, 10.0, 30.0], [1, 1, 2, 2], 50)
    array([ 2., 20.])
    """
    value, number = np.asarray(values, dtype=np.float64), np.asarray(rounds)
    if value.ndim != 1 or value.shape != number.shape:
        raise ValueError(f"values and rounds are one-dimensional and of one length, got {value.shape}, {number.shape}")
    if not 0 <= percentile <= 100:
        raise ValueError(f"a percentile is from 0 to 100, got {percentile!r}")
    return np.array([np.percentile(value[number == one], percentile) for one in np.unique(number)], dtype=np.float64)


def percentile_over_rounds(values: ArrayLike, rounds: ArrayLike, percentile: float) -> float:
    """Average the percentile of each round over the rounds.

    Parameters
    ----------
    values, rounds, percentile
        As in `percentile_by_round`.

    Returns
    -------
    float
        In the unit of `values`; NaN without samples.

    Raises
    ------
    ValueError
        As `percentile_by_round`.

    Notes
    -----
    Rounds weigh alike, whatever their number of samples: the round, not the sample, is the unit (docs/statistics.md).

    Examples
    --------
    >>> percentile_over_rounds([1.0, 3.0, 10.0, 30.0], [1, 1, 2, 2], 50)
    11.0
    """
    by_round = percentile_by_round(values, rounds, percentile)
    # numpy warns of the mean of nothing.
    return float(by_round.mean()) if by_round.size else float("nan")
