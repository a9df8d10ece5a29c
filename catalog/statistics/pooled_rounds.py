"""Rounds that draw their own inputs from a pool: which inputs a round measures, and the percentiles over all rounds.

Sorted by size, every N/n-th input is taken from a random start, so that each round holds small, middle and large inputs
in the pool's own proportions. Each round has a start of its own, independent of the others: the rounds are
interpenetrating samples, whose variance holds that of the choice of inputs.

Ten inputs of one round say little about a 90th percentile; those of all rounds together say more. The rounds are moved
to a common level, their samples are weighed by what they stand for, and deleting a round at a time shows how far the
result would have been another with other rounds and other inputs (pseudo-values by round).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

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


Stratum = Literal["all", "body", "tail", "certainty"]

# The largest inputs decide the highest percentiles and are hardly ever drawn, so that a few are measured for certain.
_CERTAIN_AT_MOST = 5
_CERTAIN_SHARE = 100
# Sizes above this quantile are drawn more often where a percentile at or above p95 is declared.
_TAIL_ABOVE = 0.97
_TAIL_INPUTS = 4


@dataclass(frozen=True)
class PoolInput:
    """An input of a pool; `size` is in the unit of its pool, `media` its media type such as `image/jpeg`."""

    id: str
    size: int
    media: str = ""


@dataclass(frozen=True)
class Pool:
    """All inputs that a latency may be measured on, with their sizes.

    Attributes
    ----------
    inputs : sequence of PoolInput
        In any order; ids are distinct.
    unit : str
        Of the sizes: `bytes` where an input is encoded, else `elements`.
    """

    inputs: Sequence[PoolInput]
    unit: str = "bytes"

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the pool: ids, sizes, media types and their unit, in whatever order they are listed."""
        rows = sorted((entry.id, entry.size, entry.media) for entry in self.inputs)
        text = json.dumps(["pool", self.unit, rows], separators=(",", ":"), ensure_ascii=False)
        # File names that are no UTF-8 come as lone surrogates, which strict UTF-8 refuses.
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def by_size(self) -> Sequence[PoolInput]:
        """The inputs from the smallest to the largest; ties stand in a random order that the digest determines."""
        return sorted(self.inputs, key=lambda entry: (entry.size, _hashed(self.digest, entry.id), entry.id))


@dataclass(frozen=True)
class DrawnInput:
    """An input of a round and the stratum it was drawn from."""

    id: str
    stratum: Stratum


@dataclass(frozen=True)
class SystematicDesign:
    """How the inputs of each round are drawn.

    Attributes
    ----------
    inputs : int
        Per round, besides the certain ones and those of the tail; at least 1.
    tail : bool
        Whether sizes above quantile 0.97 are a stratum of their own, which is drawn more often.
    """

    inputs: int
    tail: bool = False

    def strata(self, pool: Pool) -> Mapping[Stratum, Sequence[PoolInput]]:
        """Divide a pool; a pool of at most `inputs` inputs is one stratum, of which every round holds all."""
        ordered = pool.by_size
        if len(ordered) <= self.inputs:
            return {"all": ordered}
        certain = min(_CERTAIN_AT_MOST, 1 + len(ordered) // _CERTAIN_SHARE)
        rest, largest = ordered[:-certain], ordered[-certain:]
        first_of_tail = min(len(rest), int(_TAIL_ABOVE * len(ordered))) if self.tail else len(rest)
        # Media types lie side by side in the body, so that every round holds each in proportion.
        body = sorted(rest[:first_of_tail], key=lambda entry: entry.media)
        return {"body": body, **({"tail": tail} if (tail := rest[first_of_tail:]) else {}), "certainty": largest}

    def sizes(self, pool: Pool) -> Mapping[Stratum, tuple[int, int]]:
        """Return for each stratum how many inputs it has and how many of them one round holds.

        All of the certain ones are measured in the first round and stand for themselves alone.

        Examples
        --------
        >>> pool = Pool([PoolInput(f"{index:04}", 1000 + index) for index in range(2000)])
        >>> dict(SystematicDesign(10, tail=True).sizes(pool))
        {'body': (1940, 10), 'tail': (55, 4), 'certainty': (5, 5)}
        """
        per_round = {"body": self.inputs, "tail": _TAIL_INPUTS}
        return {
            name: (len(inputs), min(len(inputs), per_round.get(name, len(inputs))))
            for name, inputs in self.strata(pool).items()
        }

    def draw(self, pool: Pool, *, subject: str, round_number: int) -> tuple[DrawnInput, ...]:
        """Draw the inputs of one round, in the order in which they are sent.

        Parameters
        ----------
        pool : Pool
        subject : str
            Its strategies share the draw, so that they are compared on the same inputs.
        round_number : int
            From 1. A round that is measured again draws the same inputs.

        Returns
        -------
        tuple of DrawnInput
            Shuffled, so that no trend within a round looks like an effect of size.

        Notes
        -----
        Positions floor((k + u) N / n) for k = 0 ... n - 1 with one u in [0, 1) per stratum: systematic sampling with a
        fractional interval. Every input of a stratum has the inclusion probability n / N.

        References
        ----------
        W. G. Cochran, Sampling Techniques, 3rd edition (1977), chapter 8. P. C. Mahalanobis, Recent experiments in
        statistical sampling, Journal of the Royal Statistical Society 109 (1946): interpenetrating samples.

        Examples
        --------
        >>> pool = Pool([PoolInput(f"{index:02}", 10 * index) for index in range(40)])
        >>> drawn = SystematicDesign(4).draw(pool, subject="net", round_number=2)
        >>> drawn == SystematicDesign(4).draw(pool, subject="net", round_number=2), len(drawn)
        (True, 4)
        """
        seed = f"{subject}|{pool.digest}|{round_number}"
        drawn: list[DrawnInput] = []
        sizes = self.sizes(pool)
        for name, inputs in self.strata(pool).items():
            if name == "certainty" and round_number > 1:
                continue
            count = sizes[name][1]
            start = _hashed(seed, name)
            # The last position may round up to the number of inputs.
            last = len(inputs) - 1
            chosen = (inputs[min(last, int((step + start) * len(inputs) / count))] for step in range(count))
            drawn += [DrawnInput(entry.id, name) for entry in chosen]
        return tuple(sorted(drawn, key=lambda entry: (_hashed(seed, "order", entry.id), entry.id)))


def _hashed(*words: str) -> float:
    """Return a number in [0, 1) that the words determine, uniform over different words."""
    # Not `random`: its sequences may change between versions of Python, and a stored draw must be found again.
    # File names that are no UTF-8 come as lone surrogates, which strict UTF-8 refuses.
    digest = hashlib.sha256("|".join(words).encode("utf-8", "surrogatepass")).digest()
    # 53 bits, as many as a float holds: more would round up to 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
