"""The samples of several strategies, checked and ranked together: the one sort that every test of a family shares."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import cast

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

ADJUSTMENTS = (
    "none",
    "bonferroni",
    "sidak",
    "holm",
    "holm-sidak",
    "simes-hochberg",
    "hommel",
    "fdr_bh",
    "fdr_by",
    "fdr_tsbh",
    "fdr_tsbky",
)


def adjust_pvalues(pvalues: ArrayLike, adjustment: str) -> NDArray[np.float64]:
    """Adjust p-values for the number of comparisons.

    Parameters
    ----------
    pvalues : array_like, shape (comparisons,)
        From 0 to 1, in any order; may be empty.
    adjustment : str
        One of `ADJUSTMENTS`. Against any false rejection: "bonferroni", "sidak", "holm", "holm-sidak",
        "simes-hochberg", "hommel"; against a share of false rejections: "fdr_bh", "fdr_by", "fdr_tsbh", "fdr_tsbky";
        or "none".

    Returns
    -------
    ndarray, shape (comparisons,)
        In the input order, at most 1, never below the p-value except with the two-stage procedures.

    Raises
    ------
    ValueError
        For an unknown adjustment, or p-values outside 0 to 1 or NaN.

    Notes
    -----
    "holm" is valid whatever the dependence between the tests, as "bonferroni", and never weaker. The two-stage
    procedures take 0.05 as the level of their first stage, so compare their result with 0.05 only.
    "hommel" is O(n²), the others O(n log n).

    References
    ----------
    S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    Y. Benjamini, A. M. Krieger and D. Yekutieli, Adaptive linear step-up procedures, Biometrika 93 (2006).

    Examples
    --------
    >>> adjust_pvalues([0.01, 0.04, 0.03], "holm")
    array([0.03, 0.06, 0.06])
    """
    if adjustment not in ADJUSTMENTS:
        raise ValueError(f"unknown adjustment {adjustment!r}; choose one of {', '.join(ADJUSTMENTS)}")
    unadjusted = np.asarray(pvalues, dtype=np.float64)
    if unadjusted.ndim != 1 or not np.all((unadjusted >= 0) & (unadjusted <= 1)):
        raise ValueError("p-values are a one-dimensional array of numbers from 0 to 1, without NaN")
    if adjustment == "none" or not unadjusted.size:
        return unadjusted
    if adjustment == "holm":
        return _holm(unadjusted)
    # Imported here for its cost; this is the function that scikit-posthocs hands its own `p_adjust` to.
    from statsmodels.stats.multitest import multipletests

    with np.errstate(divide="ignore"):  # p = 1 under Sidak: the log of 0 is -inf, and the result 1
        adjusted = multipletests(unadjusted, method=adjustment)[1]
    return np.asarray(adjusted, dtype=np.float64)


def _holm(pvalues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply each p-value by the number of hypotheses not yet decided when its turn comes, smallest p-value first."""
    # By hand: statsmodels collects garbage in every Holm adjustment, 8 s instead of 0.001 s for 72 strategies x 500.
    order = np.argsort(pvalues)
    adjusted = np.empty_like(pvalues)
    adjusted[order] = np.minimum(np.maximum.accumulate(pvalues[order] * np.arange(pvalues.size, 0, -1)), 1.0)
    return adjusted


@dataclass(frozen=True, eq=False)
class PooledRanks:
    """Groups of values, ranked among all of them. The values of one group lie together, in the order given.

    Attributes
    ----------
    names : tuple of str
        One per group.
    sizes : ndarray of int, shape (groups,)
    ranks : ndarray, shape (values,)
        From 1; tied values share the mean of their ranks.
    dense_ranks : ndarray of int, shape (values,)
        From 0, without gaps; tied values share one.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    ranks: NDArray[np.float64]
    dense_ranks: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each group begins, shape (groups,)."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def rank_means(self) -> NDArray[np.float64]:
        """Mean rank of each group, shape (groups,)."""
        return np.add.reduceat(self.ranks, self.starts) / self.sizes if self.names else np.empty(0)


def finite_samples(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Check the samples of one strategy.

    Parameters
    ----------
    name : str
        For the message.
    values : array_like, shape (samples,)

    Returns
    -------
    ndarray, shape (samples,)

    Raises
    ------
    ValueError
        For more than one dimension, no values at all, or a NaN or infinity, with its index.

    Examples
    --------
    >>> finite_samples("identity@edge", [1, 2])
    array([1., 2.])
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"the samples of {name!r} have shape {array.shape}; give a one-dimensional array")
    if not array.size:
        raise ValueError(f"{name!r} has no samples; leave it out")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"the samples of {name!r} hold {array[bad[0]]} at index {bad[0]} ({bad.size} of {array.size} are not "
            f"finite); only finite values can be ranked, so leave failed inferences out"
        )
    return array


def pool_ranks(samples: Mapping[str, ArrayLike]) -> PooledRanks:
    """Rank the samples of several strategies among all of them.

    Parameters
    ----------
    samples : mapping of str to array_like, shape (samples,)
        By strategy, in any one unit. Sizes may differ.

    Returns
    -------
    PooledRanks

    Raises
    ------
    ValueError
        As `finite_samples`, for the first strategy it applies to.

    Notes
    -----
    One sort, O(n log n) in time and O(n) in memory for n values in all.

    Examples
    --------
    >>> pool_ranks({"a": [3.0, 1.0], "b": [3.0]}).ranks
    array([2.5, 1. , 2.5])
    """
    groups = [finite_samples(name, values) for name, values in samples.items()]
    pooled = np.concatenate(groups) if groups else np.empty(0)
    # Ranks from the sorted distinct values: ties get the mean of the ranks that they span.
    _, dense, counts = np.unique(pooled, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    sizes = np.array([group.size for group in groups], dtype=np.int64)
    return PooledRanks(tuple(samples), sizes, mean_ranks[dense], dense.astype(np.int64))


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
        As returned by `pool_ranks`.

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
    test rejects too often (docs/statistics.md), which is why it is reported as in the paper and decides nothing.

    References
    ----------
    W. H. Kruskal and W. A. Wallis, Use of ranks in one-criterion variance analysis, JASA 47 (1952).

    Examples
    --------
    >>> from catalog.statistics.rank_tests import pool_ranks
    >>> result = kruskal_wallis(pool_ranks({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}))
    >>> round(result.statistic, 4), round(result.pvalue, 4)
    (3.8571, 0.0495)
    """
    freedom = max(len(pooled.names) - 1, 0)
    # Centred before squaring: the textbook formula subtracts two numbers of the size n ** 3.
    centred = pooled.ranks - (pooled.ranks.size + 1) / 2
    total = float(centred @ centred)
    if freedom == 0 or total == 0:
        return KruskalWallis(float("nan"), 1.0, freedom)
    shifts = pooled.rank_means - (pooled.ranks.size + 1) / 2
    # Dividing by the variance of the ranks as they are contains the correction for ties.
    statistic = float(pooled.sizes @ shifts**2) * (pooled.ranks.size - 1) / total
    return KruskalWallis(statistic, float(scipy.special.chdtrc(freedom, statistic)), freedom)


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
        The name of the adjustment, one of `ADJUSTMENTS`.
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
        As returned by `pool_ranks`.
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
    The p-values are those of `scikit_posthocs.posthoc_conover`, adjusted by `adjust_pvalues`. The library returns no
    statistic; it is Student's t on ranks, with the spread within all k groups pooled and n - k degrees of freedom:

    .. math:: t_{ij} = (\\bar R_i - \\bar R_j) \\Big/ \\sqrt{\\frac{SS_{within}}{n - k} (1 / n_i + 1 / n_j)}

    The cases in which the library would divide by zero are decided here. When every group is constant, t is infinite
    and p is 0 for pairs with different mean ranks, and t is 0 and p is 1 for pairs with equal ones. Without degrees of
    freedom (one value per group), or when all values are tied, nothing can be said: t is NaN and p is 1.

    The test is meant for families whose Kruskal-Wallis test rejects; the caller decides whether that is so.

    References
    ----------
    W. J. Conover and R. L. Iman, On multiple-comparisons procedures, Los Alamos LA-7677-MS (1979).

    Examples
    --------
    >>> from catalog.statistics.rank_tests import pool_ranks
    >>> result = conover(pool_ranks({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}), adjustment="none")
    >>> round(float(result.statistic[0, 1]), 4), round(float(result.pvalue[0, 1]), 4)
    (-3.6742, 0.0213)
    """
    statistic = _t_statistics(pooled)
    # Without a finite t other than 0 no p-value is computed: in most such cases the library divides by zero.
    if np.any(np.isfinite(statistic) & (statistic != 0)):
        unadjusted = _posthoc_pvalues(pooled)
    else:
        unadjusted = np.where(np.isinf(statistic), 0.0, 1.0)
    # One p-value per pair: adjusting the whole matrix would count every pair twice.
    upper = np.triu_indices(len(pooled.names), k=1)
    adjusted = np.ones_like(unadjusted)
    adjusted[upper] = adjust_pvalues(unadjusted[upper], adjustment)
    adjusted.T[upper] = adjusted[upper]
    return Conover(pooled.names, statistic, adjusted, unadjusted, adjustment)


def _t_statistics(pooled: PooledRanks) -> NDArray[np.float64]:
    means = pooled.rank_means
    # Pooled within groups: n values less one mean per group.
    freedom = pooled.ranks.size - means.size
    difference = means[:, None] - means
    if freedom < 1 or np.all(pooled.dense_ranks == 0):
        statistic = np.full_like(difference, np.nan)
    else:
        within = float(np.sum((pooled.ranks - np.repeat(means, pooled.sizes)) ** 2)) / freedom
        apart = np.where(difference == 0, 0.0, np.copysign(np.inf, difference))  # every group is constant
        error = np.sqrt(within * (1 / pooled.sizes[:, None] + 1 / pooled.sizes))
        statistic = np.divide(difference, error, out=apart, where=error > 0)
    np.fill_diagonal(statistic, 0.0)
    return statistic


def _posthoc_pvalues(pooled: PooledRanks) -> NDArray[np.float64]:
    groups = np.split(pooled.ranks, pooled.starts[1:])  # the ranks of ranks are the ranks
    # p_adjust=None is no adjustment; `adjust_pvalues` does it, and both p-values are reported.
    return np.array(_posthocs().posthoc_conover(groups, p_adjust=None), dtype=np.float64)


_PLOTS = "scikit_posthocs._plotting"


class _NoPlots(ModuleType):
    """A placeholder for the library's module of plots, in which every function is None."""

    def __getattr__(self, name: str) -> None:
        return None


@cache
def _posthocs() -> ModuleType:
    """Import scikit-posthocs at its first use and without its plots.

    It loads pandas and statsmodels, longer than most commands run; the plots, which nothing here draws, would load
    matplotlib as well.
    """
    # A library that keeps its plots elsewhere some day is imported whole.
    placed = None if _PLOTS in sys.modules else sys.modules.setdefault(_PLOTS, _NoPlots(_PLOTS))
    try:
        import scikit_posthocs
    finally:
        if placed is not None:
            del sys.modules[_PLOTS]
    return cast(ModuleType, scikit_posthocs)
