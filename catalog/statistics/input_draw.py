"""The draw of a round's inputs from a pool, spread by size.

Sorted by size, every N/n-th input is taken from a random start, so that each round holds small, middle and large inputs
in the pool's own proportions. Each round has a start of its own, independent of the others: the rounds are
interpenetrating samples, whose variance holds that of the choice of inputs. `catalog.statistics.pool_percentiles` has
what they say of the whole pool.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

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
        body = sorted(rest[:first_of_tail], key=attrgetter("media"))
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
        return {name: (len(inputs), self._per_round(name, inputs)) for name, inputs in self.strata(pool).items()}

    def _per_round(self, name: Stratum, inputs: Sequence[PoolInput]) -> int:
        """Return how many inputs of a stratum one round holds."""
        return min(len(inputs), {"body": self.inputs, "tail": _TAIL_INPUTS}.get(name, len(inputs)))

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
        for name, inputs in self.strata(pool).items():
            if name == "certainty" and round_number > 1:
                continue
            count = self._per_round(name, inputs)
            start = _hashed(seed, name)
            # The last position may round up to the number of inputs.
            last = len(inputs) - 1
            chosen = (inputs[min(last, int((step + start) * len(inputs) / count))] for step in range(count))
            drawn += [DrawnInput(entry.id, name) for entry in chosen]
        return tuple(sorted(drawn, key=lambda entry: (_hashed(seed, "order", entry.id), entry.id)))


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
        Of the inputs, at or above zero in any unit.
    pool_size : float array, shape (inputs,), or None
        Ascending, of all inputs of the pool. None where sizes were not stored, and `size` with it.

    Raises
    ------
    ValueError
        For values out of range, arrays of different lengths, or sizes without those of the pool.
    """

    weight: NDArray[np.float64]
    certain: NDArray[np.bool_]
    size: NDArray[np.float64] | None = None
    pool_size: NDArray[np.float64] | None = None

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
        if (self.size is None) != (self.pool_size is None):
            raise ValueError("sizes of samples and of the pool come together, got one without the other")
        # A NaN fails the comparison.
        if self.pool_size is not None and not (
            self.pool_size.size and self.pool_size[0] >= 0 and np.all(np.diff(self.pool_size) >= 0)
        ):
            raise ValueError("the sizes of a pool are ascending numbers at or above zero, at least one")

    def of(self, samples: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Return the design of some of the samples, by position or by mask."""
        size = None if self.size is None else self.size[samples]
        return type(self)(self.weight[samples], self.certain[samples], size, self.pool_size)


def _hashed(*words: str) -> float:
    """Return a number in [0, 1) that the words determine, uniform over different words."""
    # Not `random`: its sequences may change between versions of Python, and a stored draw must be found again.
    # File names that are no UTF-8 come as lone surrogates, which strict UTF-8 refuses.
    digest = hashlib.sha256("|".join(words).encode("utf-8", "surrogatepass")).digest()
    # 53 bits, as many as a float holds: more would round up to 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def best_inputs(
    *, seconds_per_round: float, seconds_per_input: float, variance_inputs: float, variance_rounds: float
) -> float:
    """Return how many inputs in each round know a latency best for the time that they take.

    Parameters
    ----------
    seconds_per_round : float
        What a round takes before its first input: starting, probing, warming up.
    seconds_per_input : float
    variance_inputs : float
        Of the log latency of one input around the value of its round, without what its size foretells.
    variance_rounds : float
        Of the value of one round around that of all, without what is due to its inputs.

    Returns
    -------
    float
        sqrt((seconds_per_round / seconds_per_input) * (variance_inputs / variance_rounds)); infinite where rounds do
        not differ.

    References
    ----------
    T. Kalibera and R. Jones, Rigorous benchmarking in reasonable time, International Symposium on Memory Management
    (2013).

    Examples
    --------
    >>> best_inputs(seconds_per_round=2.0, seconds_per_input=0.02, variance_inputs=0.04, variance_rounds=0.01)
    20.0
    """
    if not variance_rounds > 0:
        return math.inf
    return math.sqrt(seconds_per_round / seconds_per_input * variance_inputs / variance_rounds)
