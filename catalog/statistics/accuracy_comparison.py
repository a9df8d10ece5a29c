"""Accuracies of operators compared as in the paper: exact signed ranks, Bonferroni, Cliff's delta (section 4.6.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.families import OperatorPair
from catalog.statistics.outcomes import Magnitude, cliffs_delta, magnitude
from catalog.statistics.rank_tests import finite_samples, pool_ranks

# Differences of accuracies are decimal fractions; this undoes what subtracting them in binary adds.
_DECIMALS = 9


@dataclass(frozen=True)
class SignedRank:
    """The result of `signed_rank`.

    Attributes
    ----------
    statistic : float
        The smaller of the rank sums of the positive and of the negative differences.
    pvalue : float
        Two-sided and exact.
    count : int
        Pairs that differ; the others are ignored.
    """

    statistic: float
    pvalue: float
    count: int


def signed_rank(left: ArrayLike, right: ArrayLike) -> SignedRank:
    """Test whether paired values differ.

    Parameters
    ----------
    left, right : array_like, shape (pairs,)
        In the same order and unit, for example percent.

    Returns
    -------
    SignedRank

    Raises
    ------
    ValueError
        For shapes that differ, no pairs, or a NaN or infinity.

    Notes
    -----
    Pairs without a difference are dropped (Wilcoxon's way); tied absolute differences, compared to nine decimals, share
    their mean rank. The distribution is that of all 2^n assignments of signs to these ranks, each equally likely:
    exact whatever the ties, where a normal approximation is not. When all n differences have one sign the p-value is
    2 / 2^n, the paper's 7.6e-6 for its 18 pairs. Without any difference the statistic is 0 and the p-value 1.

    The pairs are taken as independent. The study's 18 are 6 metrics in 3 nearly equal environments, which overstates
    certainty (docs/statistics.md).

    O(n³): 100 pairs take some milliseconds, 1000 a few seconds.

    References
    ----------
    F. Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1 (1945).
    Paper, section 4.6.2.

    Examples
    --------
    >>> signed_rank([82.5, 96.0, 83.2], [82.1, 95.8, 83.1])
    SignedRank(statistic=0.0, pvalue=0.25, count=3)
    """
    first, second = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(f"give paired values of one length, at least one pair; got {first.shape} and {second.shape}")
    difference = np.round(first - second, _DECIMALS)
    if not np.all(np.isfinite(difference)):
        raise ValueError(f"pair {np.flatnonzero(~np.isfinite(difference))[0]} is not finite; leave such pairs out")
    difference = difference[difference != 0]  # Wilcoxon drops pairs without a difference
    doubled = _doubled_ranks(np.abs(difference))
    positive = int(doubled[difference > 0].sum())
    # The distribution is symmetric, so two tails are twice the smaller one; 1 where they overlap.
    smaller = min(positive, int(doubled.sum()) - positive)
    at_most = float(_distribution(doubled)[: smaller + 1].sum())
    return SignedRank(smaller / 2, min(1.0, 2 * at_most), difference.size)


def _doubled_ranks(sizes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return twice the mean ranks, which makes them whole numbers."""
    _, block, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    # The k values of a tie end at rank c, so their mean rank is c - (k - 1) / 2.
    doubled: NDArray[np.int64] = (2 * np.cumsum(counts) - counts + 1)[block]
    return doubled


def _distribution(doubled_ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability of each (doubled) sum of the ranks that get a plus."""
    probability = np.zeros(int(doubled_ranks.sum()) + 1)
    probability[0] = 1.0
    # A convolution rank by rank, because the 2^n assignments of 100 pairs cannot be listed.
    for rank in doubled_ranks:
        shifted = np.zeros_like(probability)
        shifted[rank:] = probability[: probability.size - rank]
        probability = (probability + shifted) / 2  # halved at once, so that no count of assignments overflows
    return probability


@dataclass(frozen=True)
class AccuracyComparison:
    """One pair of operators.

    Attributes
    ----------
    pair : OperatorPair
    test : SignedRank
    significant : bool
        Whether the test rejects at the corrected level.
    delta : float
        Cliff's delta of all left values against all right ones; positive where the left operator is more accurate. The
        paper speaks of it where the test is significant.
    magnitude : str
    smallest_drop, largest_drop : float
        From left to right, in the unit of the accuracies; negative for a gain.
    """

    pair: OperatorPair
    test: SignedRank
    significant: bool
    delta: float
    magnitude: Magnitude
    smallest_drop: float
    largest_drop: float


@dataclass(frozen=True)
class AccuracyAnalysis:
    """The result of `compare_accuracies`.

    Attributes
    ----------
    comparisons : tuple of AccuracyComparison
    left_out : tuple of OperatorPair
        Pairs in which an operator has no accuracies.
    corrected_alpha : float
        The level of each test: alpha divided by the number of tests.
    """

    comparisons: tuple[AccuracyComparison, ...]
    left_out: tuple[OperatorPair, ...]
    corrected_alpha: float


def compare_accuracies(
    accuracies: Mapping[str, ArrayLike], pairs: Sequence[OperatorPair], *, alpha: float = 0.05
) -> AccuracyAnalysis:
    """Compare operators by their accuracies over subjects, metrics and tiers.

    Parameters
    ----------
    accuracies : mapping of str to array_like, shape (measurements,)
        By operator, in percent; the same subjects, metrics and tiers in the same order for each operator.
    pairs : sequence of OperatorPair
        As returned by `accuracy_pairs`.
    alpha : float
        Level of all tests together.

    Returns
    -------
    AccuracyAnalysis

    Raises
    ------
    ValueError
        For operators with different numbers of accuracies, a NaN or infinity, or an alpha outside 0 to 1.

    Notes
    -----
    The paper's effect sizes are **Cliff's delta of the two sets of accuracies, unpaired**: Table 6 gives 0.1667 for
    I-Q and 0.3889 for I-E, Q-E and Q-QE, 0.3333 for E-QE, which are its "0.16, small", "0.38, medium" (cut, not
    rounded, to two digits) and "medium". The other candidate, r = z / sqrt(n), is 0.88 for every pair (0.62 with 36
    values for n). Between them the accuracies of one operator differ by subject far more than the operators do, so
    such a delta says little about a drop: the paired drops are given beside it.

    References
    ----------
    Paper, section 4.6.2, Table 6; sections 5.2, 5.3 and 5.5 for its results.

    Examples
    --------
    >>> pair = OperatorPair("identity", "quantized", ("RQ2",))
    >>> analysis = compare_accuracies({"identity": [82.5, 96.0, 83.2], "quantized": [82.1, 95.8, 83.1]}, [pair])
    >>> analysis.comparisons[0].test.pvalue, round(analysis.comparisons[0].largest_drop, 2)
    (0.25, 0.4)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, got {alpha!r}")
    # Bonferroni over the pairs that were compared: a pair without evidence must not make the others stricter.
    measured = [pair for pair in pairs if _measured(accuracies, pair.left) and _measured(accuracies, pair.right)]
    level = alpha / max(len(measured), 1)
    comparisons = tuple(_compare(pair, accuracies[pair.left], accuracies[pair.right], level) for pair in measured)
    return AccuracyAnalysis(comparisons, tuple(pair for pair in pairs if pair not in measured), level)


def _measured(accuracies: Mapping[str, ArrayLike], operator: str) -> bool:
    return operator in accuracies and np.size(accuracies[operator]) > 0


def _compare(pair: OperatorPair, left: ArrayLike, right: ArrayLike, level: float) -> AccuracyComparison:
    first, second = finite_samples(pair.left, left), finite_samples(pair.right, right)
    if first.shape != second.shape:
        raise ValueError(
            f"{pair.left!r} has {first.size} accuracies and {pair.right!r} {second.size}; they are compared in pairs, "
            f"so give the same subjects, metrics and tiers for both"
        )
    test = signed_rank(first, second)
    # Unpaired, as in the paper's Table 6, although the test is paired.
    delta = float(cliffs_delta(pool_ranks({pair.left: first, pair.right: second}))[0, 1])
    drops = first - second
    return AccuracyComparison(
        pair, test, test.pvalue <= level, delta, magnitude(delta), float(drops.min()), float(drops.max())
    )
