"""Whether at least one group of a family differs: the Kruskal-Wallis test, as in the paper (section 4.6)."""

from dataclasses import dataclass

from scipy.special import chdtrc

from catalog.statistics.rank_tests import PooledRanks


@dataclass(frozen=True)
class KruskalWallis:
    """The result of `kruskal_wallis`.

    Attributes
    ----------
    statistic : float
        H, corrected for ties; NaN where there is nothing to test (see `kruskal_wallis`).
    pvalue : float
        From the chi-squared approximation; 1 where there is nothing to test.
    degrees_of_freedom : int
        Groups minus one.
    """

    statistic: float
    pvalue: float
    degrees_of_freedom: int


def kruskal_wallis(pooled: PooledRanks) -> KruskalWallis:
    """Test whether all groups come from one distribution.

    Parameters
    ----------
    pooled : PooledRanks
        As of `pool_ranks`.

    Returns
    -------
    KruskalWallis

    Notes
    -----
    With ranks :math:`r`, their sum :math:`R_i` over the :math:`n_i` values of group i, and n values in all,

    .. math:: H = \\Big(\\sum_i R_i^2 / n_i - n (n + 1)^2 / 4\\Big) \\Big/ S^2, \\quad
              S^2 = \\Big(\\sum r^2 - n (n + 1)^2 / 4\\Big) \\Big/ (n - 1)

    which is the usual statistic divided by its correction for ties. With fewer than two groups, or when all values are
    tied, nothing can differ: the statistic is NaN and the p-value 1.

    Samples are taken as independent. Repetitions of the same inputs in the same round are not: with such samples the
    test rejects too often (DESIGN section 8), which is why it is reported as in the paper and decides nothing.

    References
    ----------
    W. H. Kruskal and W. A. Wallis, Use of ranks in one-criterion variance analysis, JASA 47 (1952).

    Examples
    --------
    >>> from catalog.statistics import pool_ranks
    >>> result = kruskal_wallis(pool_ranks({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}))
    >>> round(result.statistic, 4), round(result.pvalue, 4)
    (3.8571, 0.0495)
    """
    freedom = max(len(pooled.names) - 1, 0)
    centred = pooled.ranks - (pooled.ranks.size + 1) / 2
    total = float(centred @ centred)
    if freedom == 0 or total == 0:
        return KruskalWallis(float("nan"), 1.0, freedom)
    shifts = pooled.rank_means - (pooled.ranks.size + 1) / 2
    statistic = float(pooled.sizes @ shifts**2) * (pooled.ranks.size - 1) / total
    return KruskalWallis(statistic, float(chdtrc(freedom, statistic)), freedom)
