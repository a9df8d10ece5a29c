"""Rounds over different numbers of inputs: which of them speak of a percentile together."""

from collections.abc import Mapping

# With fewer rounds than this there is hardly an interval, so narrow rounds are better than none.
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
