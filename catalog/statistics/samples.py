"""The latencies of one strategy as crossed rounds and inputs, their percentiles, and the same over resampled inputs.

Repetitions stay: a percentile is taken over all repetitions of all inputs within a round, because a request is one
repetition and not a mean of five. They are nested in (round, input) and therefore never resampled on their own.

Inputs are shared by all rounds and all strategies of a subject, so one draw of inputs (how often each is taken) is
applied to every round of every strategy. A draw then costs no sorting: each round is sorted once, the counts of a draw
are summed along that order, and a percentile is where the sum passes its rank.

What is resampled or fitted takes time in proportion to the samples. Of ten thousand repetitions of one input in one
round, every hundredth in the order of their latency (`typical_repetitions`) gives the same percentiles to a fraction of
what any interval says.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.pool_percentiles import PoolPercentile, PoolStudy


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
    design : SampleDesign or None
        What each sample stands for; None where rounds and inputs are crossed.
    hosts : int array, shape (rounds,), or None
        A number for the machine of each round; None where all ran on one.

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
    design: SampleDesign | None = None
    hosts: NDArray[np.int64] | None = None
    _pool_percentiles: dict[float, PoolPercentile] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_arrays(
        cls,
        latency_s: ArrayLike,
        round_number: ArrayLike,
        input_index: ArrayLike,
        *,
        design: SampleDesign | None = None,
        hosts: Mapping[int, str] | None = None,
    ) -> Self:
        """Take flat arrays, one entry per sample, in any order.

        Parameters
        ----------
        latency_s : array_like of float, shape (samples,)
            Seconds; finite and above zero.
        round_number, input_index : array_like of int, shape (samples,)
            Of each sample. Several samples of one round and input are its repetitions.
        design : SampleDesign or None
            Of rounds that drew their inputs; None where rounds and inputs are crossed.
        hosts : mapping of int to str, or None
            The machine of each round, where several of one class share the rounds.

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
        if design is not None and design.weight.shape != latency.shape:
            raise ValueError(f"a design has an entry per sample, got {design.weight.size} for {latency.size}")
        # Logs once: effects on latency multiply, and the ratio of two strategies is a difference of logs.
        machines = None if hosts is None else np.unique([hosts[one] for one in rounds.tolist()], return_inverse=True)[1]
        return cls(np.log(latency), round_position, input_position, rounds, inputs, design, machines)

    @property
    def interpenetrating(self) -> bool:
        """Whether each round has drawn its own inputs, so that the variance across rounds holds that of the inputs."""
        return self.design is not None

    @property
    def cells(self) -> NDArray[np.int64]:
        """How many repetitions each round has of each input, shape (rounds, inputs); zero is a missing cell."""
        # One bincount over the numbers of cells instead of one per round.
        flat = self.round_position * self.inputs.size + self.input_position
        count = np.bincount(flat, minlength=self.rounds.size * self.inputs.size)
        return count.astype(np.int64).reshape(self.rounds.size, self.inputs.size)

    # Kept: samples never change, and every interval and comparison asks for both.
    @cached_property
    def fewest_inputs(self) -> int:
        """Distinct inputs of the round with the fewest: repetitions say nothing about other inputs."""
        return int((self.cells > 0).sum(axis=1).min())

    @cached_property
    def supporting_inputs(self) -> int:
        """How many inputs a percentile rests on: of crossed rounds those of one, of interpenetrating ones all."""
        return int((self.cells > 0).sum()) if self.interpenetrating else self.fewest_inputs

    def pool_percentiles(self, percentiles: Sequence[float]) -> tuple[PoolPercentile, ...]:
        """Return percentiles over the pool that the rounds have drawn from, each computed once.

        Raises
        ------
        ValueError
            Where rounds and inputs are crossed.
        """
        if self.design is None:
            raise ValueError("rounds that are crossed with their inputs say nothing of a pool")
        new = [percentile for percentile in dict.fromkeys(percentiles) if percentile not in self._pool_percentiles]
        if new:
            computed = _study(self).percentiles(new)
            self._pool_percentiles.update(zip(new, computed, strict=True))
        return tuple(self._pool_percentiles[percentile] for percentile in percentiles)

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
        design = None if self.design is None else self.design.of(keep)
        hosts = None if self.hosts is None else self.hosts[np.isin(self.rounds, kept_rounds)]
        latency = self.log_latency[keep]
        return type(self)(latency, round_position, input_position, kept_rounds, kept_inputs, design, hosts)


# Kept for the strategies of a question and some more: with a pool of thousands each takes megabytes.
@lru_cache(maxsize=64)
def _study(samples: Samples) -> PoolStudy:
    assert samples.design is not None
    return PoolStudy.of(samples.log_latency, samples.round_position, samples.design)


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


@lru_cache(maxsize=4)
def seeded_draws(inputs: int, n_resamples: int, *seed: int) -> NDArray[np.int32]:
    """Return what `draw_inputs` draws from a seed; the strategies of a subject share it, so that it is kept.

    Parameters
    ----------
    inputs, n_resamples : int
        As `draw_inputs` takes them.
    *seed : int
        One number, or several that seed together.

    Returns
    -------
    int array, shape (inputs, n_resamples)
        Read-only.

    Examples
    --------
    >>> seeded_draws(5, 3, 1) is seeded_draws(5, 3, 1)
    True
    """
    rng = np.random.default_rng(seed[0] if len(seed) == 1 else seed)
    counts = draw_inputs(inputs, n_resamples=n_resamples, rng=rng)
    counts.flags.writeable = False
    return counts


_MOST_KEPT = 512
_log_percentiles: WeakKeyDictionary[Samples, dict[float, NDArray[np.float64]]] = WeakKeyDictionary()


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

    Where rounds have drawn their inputs, the pseudo-values of `catalog.statistics.pool_percentiles`.

    Examples
    --------
    >>> samples = Samples.from_arrays([1.0, 100.0, 1.0, 10000.0], [1, 1, 2, 2], [0, 1, 0, 1])
    >>> np.exp(log_percentiles(samples, [50])).round(6)
    array([[ 10., 100.]])
    >>> design = SampleDesign(np.array([0.45, 0.45, 0.1]), np.zeros(3, dtype=np.bool_))
    >>> drawn = Samples.from_arrays([1.0, 100.0, 8.0], [1, 1, 1], [0, 1, 2], design=design)
    >>> np.exp(log_percentiles(drawn, [50])).round(6)
    array([[8.]])
    """
    check_percentiles(percentiles)
    # Kept with the samples, which never change: an interval and every comparison of a strategy start from the same.
    kept = _log_percentiles.setdefault(samples, {})
    by_round = {percentile: kept.get(percentile) for percentile in percentiles}
    if new := [percentile for percentile, own in by_round.items() if own is None]:
        if len(kept) + len(new) > _MOST_KEPT:
            kept.clear()
        computed = dict(zip(new, _within_rounds(samples, new), strict=True))
        kept.update(computed)
        by_round.update(computed)
    return np.array([by_round[percentile] for percentile in percentiles])


def _within_rounds(samples: Samples, percentiles: Sequence[float]) -> NDArray[np.float64]:
    if samples.design is not None:
        return np.stack([percentile.by_round for percentile in samples.pool_percentiles(percentiles)])
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
    The same draw is applied to all rounds. O(samples x n_resamples) in time, bounded in memory. Interpenetrating rounds
    are not resampled: their inputs vary from round to round already, so that every draw is the estimate itself.

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
    if samples.interpenetrating:
        return np.repeat(log_percentiles(samples, percentiles)[..., np.newaxis], counts.shape[1], axis=2)
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


def seeded_log_percentiles(
    samples: Samples, percentiles: Sequence[float], *, n_resamples: int, seed: tuple[int, ...]
) -> NDArray[np.float64]:
    """Take the percentiles of `resampled_log_percentiles` for the draws of a seed.

    Parameters
    ----------
    samples : Samples
    percentiles : sequence of float
        Above 0 and below 100.
    n_resamples : int
        Draws of inputs, at least 2.
    seed : tuple of int

    Returns
    -------
    float array, shape (percentiles, rounds, draws)
        As many draws as were asked for; two of interpenetrating rounds, of which every draw is the same.

    Examples
    --------
    >>> crossed = Samples.from_arrays([1.0, 4.0, 9.0], [1, 1, 1], [0, 1, 2])
    >>> drawn = Samples.from_arrays([1.0, 2.0], [1, 1], [0, 1], design=SampleDesign(np.full(2, 0.5), np.zeros(2, bool)))
    >>> [seeded_log_percentiles(own, [50], n_resamples=9, seed=(1,)).shape[2] for own in (crossed, drawn)]
    [9, 2]
    """
    if samples.interpenetrating:
        # Two are enough to show that nothing varies; thousands would take longer than all else of an interval.
        return np.repeat(log_percentiles(samples, percentiles)[..., np.newaxis], 2, axis=2)
    counts = seeded_draws(samples.inputs.size, n_resamples, *seed)
    return resampled_log_percentiles(samples, percentiles, counts=counts)


def _weighted(
    ascending: NDArray[np.float64], counts: NDArray[np.integer], percentiles: Sequence[float]
) -> NDArray[np.float64]:
    """Return the type 7 of a sample with each value `counts` times, shape (percentiles, n_resamples)."""
    # 32 bits, as `_CHUNK` reckons. Row by row, because numpy's cumsum goes down the columns one by one.
    passed = np.array(counts, dtype=np.int32)
    for row in range(1, len(passed)):
        passed[row] += passed[row - 1]
    total = passed[-1].astype(np.int64)
    out = np.empty((len(percentiles), counts.shape[1]))
    for row, percentile in enumerate(percentiles):
        # Type 7 of Hyndman and Fan (1996), numpy's default, so that a draw of every input once is the estimate itself.
        rank = np.maximum(total - 1, 0) * (percentile / 100)
        below = np.floor(rank).astype(np.int32)
        above = np.minimum(below + 1, np.maximum(total - 1, 0)).astype(np.int32)
        # The value of rank r is the first whose running count exceeds r; in an empty draw none does.
        low, high = (
            ascending[np.minimum(np.add.reduce(passed <= which, axis=0, dtype=np.int32), ascending.size - 1)]
            for which in (below, above)
        )
        out[row] = np.where(total > 0, low + (rank - below) * (high - low), np.nan)
    return out


def check_percentiles(percentiles: ArrayLike) -> None:
    """Raise ValueError for percentiles that can have no interval."""
    levels = np.atleast_1d(np.asarray(percentiles, dtype=np.float64))
    if not levels.size or not np.all((levels > 0) & (levels < 100)):
        raise ValueError(f"a percentile is above 0 and below 100, got {percentiles!r}")


# Far above what a study needs, so that no ordinary figure changes; a question about so many takes less than a second.
MOST_SAMPLES = 10_000
_GOLDEN = (5**0.5 - 1) / 2


def typical_positions(
    latency_s: Sequence[NDArray[np.float64]],
    input_index: Sequence[NDArray[np.int64]],
    *,
    most: int = MOST_SAMPLES,
    drawn: bool = False,
) -> list[NDArray[np.int64]]:
    """Choose the samples of each round that stand for all of them.

    Parameters
    ----------
    latency_s : sequence of float array
        Of each round.
    input_index : sequence of int array
        The input of each latency.
    most : int
        How many samples stay, about; at least one of every input that stays.
    drawn : bool
        Whether rounds drew their inputs. Those stand for parts of a pool, so that all of them stay.

    Returns
    -------
    list of int array
        Positions within each round; all of them where there are no more than `most`.

    Notes
    -----
    Each cell (round and input) is divided into equal shares in the order of latency, and one latency of each share
    stays, at a place that is spread evenly from share to share (multiples of the golden ratio). Where even one of each
    cell is too many, every so many inputs stay, the same in all rounds: fewer inputs, with the wider interval that
    fewer inputs have. O(n log n).

    Examples
    --------
    >>> latency_s, index = np.arange(1.0, 13.0), np.repeat([0, 1], 6)
    >>> [kept] = typical_positions([latency_s], [index], most=4)
    >>> latency_s[kept].tolist()
    [2.0, 4.0, 9.0, 11.0]
    """
    total = sum(values.size for values in latency_s)
    if total <= most:
        return [np.arange(values.size) for values in latency_s]
    step = math.ceil(total / most)
    kept = [_every(step, values, index) for values, index in zip(latency_s, input_index, strict=True)]
    left = sum(positions.size for positions in kept)
    if left <= 2 * most or drawn:
        return kept
    inputs = np.unique(np.concatenate(input_index))
    staying = inputs[:: math.ceil(left / most)]
    return [positions[np.isin(index[positions], staying)] for positions, index in zip(kept, input_index, strict=True)]


def _every(step: int, values: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(values)
    # Stable, so that each input's latencies stay ascending.
    order = order[np.argsort(index[order], kind="stable")]
    starts = np.flatnonzero(np.diff(index[order], prepend=index[order[0]] - 1)) if order.size else order
    sizes = np.diff(starts, append=order.size)
    shares = np.maximum(1, np.rint(sizes / step).astype(np.int64))
    share = np.arange(shares.sum()) - np.repeat(np.cumsum(shares) - shares, shares)
    # Not the middle of each share: the upper half of the highest ones, where high percentiles lie, would never stay.
    within = (np.arange(share.size) * _GOLDEN + 0.5) % 1
    place = np.floor((share + within) * np.repeat(sizes / shares, shares)).astype(np.int64)
    # In the order of measurement, on which nothing depends but what a reader compares.
    return np.sort(order[np.repeat(starts, shares) + np.minimum(place, np.repeat(sizes, shares) - 1)])
