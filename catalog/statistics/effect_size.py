"""How far two groups lie apart: Cliff's delta, with the paper's sign and words (sections 4.6 and 5, Table 5)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.rank_tests import PooledRanks

Magnitude = Literal["negligible", "small", "medium", "large"]


def cliffs_delta(pooled: PooledRanks) -> NDArray[np.float64]:
    """Compute Cliff's delta of all pairs of groups.

    Parameters
    ----------
    pooled : PooledRanks
        As returned by `pool_ranks`.

    Returns
    -------
    ndarray, shape (groups, groups)
        Row is the left member of a pair, column the right: the share of pairs of values in which the left one is the
        larger, minus the share in which it is the smaller. From −1 to 1; antisymmetric; 0 on the diagonal.

    Notes
    -----
    **Sign.** Negative: the left member has, in general, the lower values, so for latencies it is the faster one (paper,
    section 4.6.2). The paper's tables hold one subject in each triangle, and both triangles show the delta of the
    member *listed first* against the one listed later. So the upper triangle reads (row, column), as the footnote of
    Table 5 says, and the lower one (column, row): there, ResNext's cell E, M is positive because Mobile is slower than
    Edge. Tables 13 and 16 are whole matrices and read (row, column).

    **Cost.** After the one sort of all values, each group takes one cumulative histogram over the dense ranks, from
    which the values of all groups read how many of it they exceed: O(n) a group, O(n k) in all, in O(n) memory.

    References
    ----------
    N. Cliff, Dominance statistics: ordinal analyses to answer ordinal questions, Psychological Bulletin 114 (1993).

    Examples
    --------
    >>> from catalog.statistics import pool_ranks
    >>> float(cliffs_delta(pool_ranks({"edge": [1.0, 2.0], "mobile": [2.0, 3.0]}))[0, 1])
    -0.75
    """
    count = len(pooled.names)
    delta = np.zeros((count, count))
    distinct = int(pooled.dense_ranks.max(initial=-1)) + 1
    for column, (start, size) in enumerate(zip(pooled.starts, pooled.sizes, strict=True)):
        counts = np.bincount(pooled.dense_ranks[start : start + size], minlength=distinct)
        below = np.cumsum(counts) - counts
        balance = 2 * below + counts - size  # per distinct value: members of this group below it, minus those above
        wins = np.add.reduceat(balance[pooled.dense_ranks], pooled.starts)
        delta[:, column] = wins / (pooled.sizes * size)
    return delta


def magnitude(delta: float) -> Magnitude:
    """Return the word for the size of a delta.

    Parameters
    ----------
    delta : float
        From −1 to 1.

    Returns
    -------
    str
        "negligible" below 0.147, "small" below 0.33, "medium" below 0.474, "large" from there on.

    Raises
    ------
    ValueError
        Outside −1 to 1, or NaN.

    References
    ----------
    Paper, section 4.6.2.

    Examples
    --------
    >>> magnitude(-0.38)
    'medium'
    """
    size = abs(delta)
    if not size <= 1:
        raise ValueError(f"Cliff's delta is from -1 to 1, got {delta!r}")
    if size < 0.147:
        return "negligible"
    if size < 0.33:
        return "small"
    return "medium" if size < 0.474 else "large"


def delta_symbol(delta: float) -> str:
    """Write a delta as the cells of Tables 5 and 7 to 16 do.

    Parameters
    ----------
    delta : float
        From −1 to 1.

    Returns
    -------
    str
        The initial of its magnitude (N, S, M, L), with a minus where it is negative.

    Raises
    ------
    ValueError
        As `magnitude`.

    Examples
    --------
    >>> delta_symbol(-0.9)
    '-L'
    """
    return ("-" if delta < 0 else "") + magnitude(delta)[0].upper()
