"""Which pairs of a family differ: the Conover-Iman test after Kruskal-Wallis, as in the paper (section 4.6)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from catalog.statistics.adjustment import adjust_pvalues
from catalog.statistics.rank_tests import PooledRanks


@dataclass(frozen=True, eq=False)
class Conover:
    """The result of `conover`: matrices of shape (groups, groups), in the order of `names`.

    Row is the left member of a pair, column the right.

    Attributes
    ----------
    names : tuple of str
    statistic : ndarray
        t, positive where the left member has the larger values; its matrix is antisymmetric.
    pvalue : ndarray
        Two-sided and adjusted; symmetric, with ones on the diagonal.
    unadjusted_pvalue : ndarray
    adjustment : str
        Its name, as given.
    """

    names: tuple[str, ...]
    statistic: NDArray[np.float64]
    pvalue: NDArray[np.float64]
    unadjusted_pvalue: NDArray[np.float64]
    adjustment: str


def conover(pooled: PooledRanks, *, adjustment: str = "holm") -> Conover:
    """Compare all pairs of groups by their mean ranks in the pooled data.

    Parameters
    ----------
    pooled : PooledRanks
        As of `pool_ranks`.
    adjustment : str
        How the p-values are adjusted for the number of pairs: one of `ADJUSTMENTS`.

    Returns
    -------
    Conover

    Raises
    ------
    ValueError
        For an unknown adjustment.

    Notes
    -----
    The statistic is Student's t on ranks, with the spread within all k groups pooled,

    .. math:: t_{ij} = (\\bar R_i - \\bar R_j) \\Big/ \\sqrt{\\frac{SS_{within}}{n - k} (1 / n_i + 1 / n_j)}

    and n − k degrees of freedom. Conover and Iman write :math:`S^2 (n - 1 - H) / (n - k)` for the first factor, with
    H corrected for ties: the same number, but computed from the differences to each group's mean it keeps its digits
    when groups are separated, and is exactly 0 when each group is constant. Then t is infinite and p 0 for pairs with
    different mean ranks, and t is 0 and p 1 for pairs with equal ones. Without degrees of freedom (one value per
    group) nothing can be said: t is NaN and p 1; likewise when all values are tied.

    It is meant for families whose Kruskal-Wallis test rejects; whether that is so is for the caller to say.
    O(n + k²) after the sort.

    References
    ----------
    W. J. Conover and R. L. Iman, On multiple-comparisons procedures, Los Alamos LA-7677-MS (1979).

    Examples
    --------
    >>> from catalog.statistics import pool_ranks
    >>> result = conover(pool_ranks({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}), adjustment="none")
    >>> round(float(result.statistic[0, 1]), 4), round(float(result.pvalue[0, 1]), 4)
    (-3.6742, 0.0213)
    """
    statistic = _t_statistics(pooled)
    freedom = pooled.ranks.size - len(pooled.names)
    unadjusted = np.ones_like(statistic)
    known = ~(np.isnan(statistic) | np.eye(len(pooled.names), dtype=bool))
    unadjusted[known] = np.minimum(1.0, 2 * stdtr(freedom, -np.abs(statistic[known])))
    upper = np.triu_indices(len(pooled.names), k=1)
    adjusted = np.ones_like(statistic)
    adjusted[upper] = adjust_pvalues(unadjusted[upper], adjustment)
    adjusted.T[upper] = adjusted[upper]
    return Conover(pooled.names, statistic, adjusted, unadjusted, adjustment)


def _t_statistics(pooled: PooledRanks) -> NDArray[np.float64]:
    means = pooled.rank_means
    freedom = pooled.ranks.size - means.size
    difference = means[:, None] - means
    if freedom < 1 or np.all(pooled.dense_ranks == 0):
        statistic = np.full_like(difference, np.nan)
    else:
        within = float(np.sum((pooled.ranks - np.repeat(means, pooled.sizes)) ** 2)) / freedom
        apart = np.where(difference == 0, 0.0, np.copysign(np.inf, difference))  # each group constant
        error = np.sqrt(within * (1 / pooled.sizes[:, None] + 1 / pooled.sizes))
        statistic = np.divide(difference, error, out=apart, where=error > 0)
    np.fill_diagonal(statistic, 0.0)
    return statistic
