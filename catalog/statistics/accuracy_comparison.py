"""Accuracies of operators compared as in the paper: exact signed ranks, Bonferroni, Cliff's delta (section 4.6.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from catalog.statistics.effect_size import Magnitude, cliffs_delta, magnitude
from catalog.statistics.families import OperatorPair
from catalog.statistics.rank_tests import finite_samples, pool_ranks
from catalog.statistics.wilcoxon import SignedRank, signed_rank


@dataclass(frozen=True)
class AccuracyComparison:
    """One pair of operators.

    Attributes
    ----------
    pair : OperatorPair
    test : SignedRank
    significant : bool
        At the corrected level.
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
        Pairs of which an operator has no accuracies.
    corrected_alpha : float
        The level of each test: alpha divided by how many were made.
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
        As of `accuracy_pairs`.
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
    >>> found = compare_accuracies({"identity": [82.5, 96.0, 83.2], "quantized": [82.1, 95.8, 83.1]}, [pair])
    >>> found.comparisons[0].test.pvalue, round(found.comparisons[0].largest_drop, 2)
    (0.25, 0.4)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, got {alpha!r}")
    known = [pair for pair in pairs if _measured(accuracies, pair.left) and _measured(accuracies, pair.right)]
    level = alpha / max(len(known), 1)
    comparisons = tuple(_compare(pair, accuracies[pair.left], accuracies[pair.right], level) for pair in known)
    return AccuracyAnalysis(comparisons, tuple(pair for pair in pairs if pair not in known), level)


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
    delta = float(cliffs_delta(pool_ranks({pair.left: first, pair.right: second}))[0, 1])
    drops = first - second
    return AccuracyComparison(
        pair, test, test.pvalue <= level, delta, magnitude(delta), float(drops.min()), float(drops.max())
    )
