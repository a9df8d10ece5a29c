"""The latencies of one strategy as crossed rounds and inputs: what every deciding analysis starts from.

Repetitions stay: a percentile is taken over all repetitions of all inputs within a round, because a request is one
repetition and not a mean of five. They are nested in (round, input) and therefore never resampled on their own.
"""

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
        bad = np.flatnonzero(~(np.isfinite(latency) & (latency > 0)))
        if bad.size:
            first = bad[0]
            raise ValueError(
                f"a latency is a finite number of seconds above zero, got {latency[first]} at position {first} "
                f"(round {number[first]}, input {index[first]}); {bad.size} of {latency.size} samples are like that"
            )
        rounds, round_position = np.unique(number, return_inverse=True)
        inputs, input_position = np.unique(index, return_inverse=True)
        return cls(np.log(latency), round_position, input_position, rounds, inputs)

    @property
    def cells(self) -> NDArray[np.int64]:
        """How many repetitions each round has of each input, shape (rounds, inputs); zero is a missing cell."""
        flat = self.round_position * self.inputs.size + self.input_position
        count = np.bincount(flat, minlength=self.rounds.size * self.inputs.size)
        return count.astype(np.int64).reshape(self.rounds.size, self.inputs.size)

    @property
    def fewest_inputs(self) -> int:
        """Distinct inputs of the round with the fewest: repetitions say nothing about other inputs."""
        return int((self.cells > 0).sum(axis=1).min())

    def restricted(self, *, rounds: ArrayLike, inputs: ArrayLike) -> Self:
        """Only what was measured in these rounds on these inputs.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        keep = np.isin(self.rounds[self.round_position], rounds) & np.isin(self.inputs[self.input_position], inputs)
        if not keep.any():
            raise ValueError("no sample is in these rounds and on these inputs")
        kept_rounds, round_position = np.unique(self.rounds[self.round_position[keep]], return_inverse=True)
        kept_inputs, input_position = np.unique(self.inputs[self.input_position[keep]], return_inverse=True)
        return type(self)(self.log_latency[keep], round_position, input_position, kept_rounds, kept_inputs)


def _whole(values: ArrayLike, *, name: str) -> NDArray[np.int64]:
    given = np.asarray(values)
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"{name} holds whole numbers, got {given.dtype}")
    return given.astype(np.int64)
