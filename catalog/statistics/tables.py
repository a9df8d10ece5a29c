"""Tables of smooth functions that are slow to compute and asked for again and again, such as inverse tails."""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# A table costs as much as some fifty values, so that it is worth making only where a service asks question upon
# question about the same evidence.
OFTEN = 20
# Bounds kept per estimate: questions choose their level, so that their number must be limited.
_MOST_BOUNDS = 256


@dataclass(frozen=True, eq=False)
class HermiteTable:
    """A function between its nodes by the cubic that has its values and slopes there.

    Attributes
    ----------
    nodes, values, slopes : array of float
        Ascending nodes. Python's arrays: looking one number up takes a fraction of what it takes in NumPy's, and the
        tables of a subject take a quarter of the memory of lists, so that a processor's cache holds them.

    Examples
    --------
    >>> x = np.linspace(0, 1, 33)
    >>> table = HermiteTable.of(x, np.exp(x), np.exp(x))
    >>> round(table.at(0.3), 6), table.at(1.5) is None  # exp(0.3)
    (1.349859, True)
    """

    nodes: "array[float]"
    values: "array[float]"
    slopes: "array[float]"

    @classmethod
    def of(cls, nodes: NDArray[np.float64], values: NDArray[np.float64], slopes: NDArray[np.float64]) -> "HermiteTable":
        """Take arrays of one length."""
        return cls(*(array("d", column.tolist()) for column in (nodes, values, slopes)))

    def at(self, place: float) -> float | None:
        """Return the function there; None beyond the nodes."""
        nodes, values, slopes = self.nodes, self.values, self.slopes
        right = bisect_right(nodes, place)
        if not 0 < right < len(nodes):
            return None
        left = right - 1
        start = nodes[left]
        width = nodes[right] - start
        share = (place - start) / width
        rest = 1 - share
        return rest * rest * ((1 + 2 * share) * values[left] + share * width * slopes[left]) + (
            share * share * ((3 - 2 * share) * values[right] - rest * width * slopes[right])
        )


@dataclass(eq=False)
class Tables:
    """The tables of one estimate, each made once its function was asked for often, and bounds as they were computed."""

    counts: dict[Hashable, int] = field(default_factory=dict)
    made: dict[Hashable, HermiteTable] = field(default_factory=dict)
    bounds: dict[Hashable, float] = field(default_factory=dict)

    def bound(self, key: Hashable, compute: Callable[[], float]) -> float:
        """Return a bound that only the key decides; budgets differ from question to question, levels seldom do."""
        bound = self.bounds.get(key)
        if bound is None:
            bound = compute()
            if len(self.bounds) >= _MOST_BOUNDS:
                self.bounds.clear()
            self.bounds[key] = bound
        return bound

    def is_due(self, key: Hashable) -> bool:
        """Count one more value that was computed without a table; return whether to make one now."""
        count = self.counts.get(key, 0) + 1
        self.counts[key] = count
        return count == OFTEN
