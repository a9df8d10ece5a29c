"""All of one subject analysed as in the paper: its latencies (sections 4.6 and 5), and accuracies of operators (4.6.2).

Latencies take Kruskal-Wallis and Conover; accuracies exact signed ranks, Bonferroni and Cliff's delta.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.description import SampleDescription, describe
from catalog.statistics.families import OperatorPair, StrategyFamily
from catalog.statistics.outcomes import Magnitude, cliffs_delta, delta_symbol, magnitude
from catalog.statistics.rank_tests import Conover, KruskalWallis, conover, finite_samples, kruskal_wallis, pool_ranks


@dataclass(frozen=True)
class Speedup:
    """One median against another, or the average over several subjects.

    Attributes
    ----------
    factor : float
        At least 1: the larger median divided by the smaller one.
    direction : {"lower", "higher", "equal"}
        Of the first median against the reference. Lower is faster.
    average : bool
        Whether `factor` is the mean over more than one pair of medians.
    """

    factor: float
    direction: Literal["lower", "higher", "equal"]
    average: bool = False

    def __str__(self) -> str:
        """Return the paper's wording, without significance: `1.83x lower median latency`."""
        what = "average median latency" if self.average else "median latency"
        return f"equal {what}" if self.direction == "equal" else f"{self.factor:.2f}x {self.direction} {what}"


def speedup(medians: ArrayLike, reference_medians: ArrayLike) -> Speedup:
    """Compare medians with those of a reference, in the paper's words.

    Parameters
    ----------
    medians, reference_medians : array_like, shape () or (subjects,)
        Above 0, in any one unit: of the strategy in question, and of the one it is compared with, in the same order.

    Returns
    -------
    Speedup

    Raises
    ------
    ValueError
        For shapes that differ, no medians, or a median that is not a finite number above 0.

    Notes
    -----
    The paper's average is the arithmetic mean of each subject's ratio (1.83 for Edge against Mobile, Table 5's
    subjects), not the ratio of mean medians (1.93). Such a mean depends on which way the ratios are taken, so the
    direction is that of the mean *log* ratio, and the ratios are then taken that way: the factor is at least 1.

    References
    ----------
    Paper, section 5.1.

    Examples
    --------
    >>> str(speedup(5.64, 17.61))
    '3.12x lower median latency'
    >>> str(speedup([5.64, 3.96, 12.28, 23.64], [8.94, 6.29, 27.38, 45.46]))
    '1.83x lower average median latency'
    """
    ours, theirs = np.asarray(medians, dtype=np.float64), np.asarray(reference_medians, dtype=np.float64)
    if ours.shape != theirs.shape or ours.ndim > 1 or not ours.size:
        raise ValueError(f"give as many medians as reference medians, got shapes {ours.shape} and {theirs.shape}")
    for values in (ours, theirs):
        if not np.all((values > 0) & np.isfinite(values)):
            raise ValueError(f"a median must be a finite number above 0 to be in a ratio, got {values.tolist()}")
    average = ours.size > 1
    # The direction by the geometric mean: the arithmetic mean of ratios can exceed 1 in both directions.
    log_ratio = float(np.mean(np.log(theirs) - np.log(ours)))
    if log_ratio == 0:
        return Speedup(1.0, "equal", average)
    if log_ratio > 0:
        # Taken in the direction of the geometric mean, the arithmetic mean of the ratios cannot be below 1.
        return Speedup(float(np.mean(theirs / ours)), "lower", average)
    return Speedup(float(np.mean(ours / theirs)), "higher", average)


@dataclass(frozen=True)
class PairComparison:
    """One pair of a family.

    Attributes
    ----------
    left, right : str
    statistic : float
        Conover's t; negative where the left one has the lower values.
    pvalue, unadjusted_pvalue : float
        Of Conover's test.
    significant : bool
        The family's Kruskal-Wallis test rejects, and so does this pair's adjusted p-value. The paper shows an effect
        size only then.
    delta : float
        Cliff's delta; negative where the left one has the lower values.
    magnitude : str
    symbol : str
        As in the cells of Tables 5 and 7 to 16: empty unless significant.
    speedup : Speedup or None
        Of the left median against the right one; None unless both are above 0.
    """

    left: str
    right: str
    statistic: float
    pvalue: float
    unadjusted_pvalue: float
    significant: bool
    delta: float
    magnitude: Magnitude
    symbol: str
    speedup: Speedup | None


@dataclass(frozen=True, eq=False)
class FamilyAnalysis:
    """One family of one subject: matrices of shape (members, members); row is the left member of a pair.

    Attributes
    ----------
    family : StrategyFamily
    members : tuple of str
        Those with samples, in the family's order.
    left_out : tuple of str
        Those without.
    alpha : float
    kruskal_wallis : KruskalWallis
    post_hoc : Conover
        Also where Kruskal-Wallis does not reject; see `rejected`.
    delta : ndarray
        Cliff's.
    median : ndarray, shape (members,)
    """

    family: StrategyFamily
    members: tuple[str, ...]
    left_out: tuple[str, ...]
    alpha: float
    kruskal_wallis: KruskalWallis
    post_hoc: Conover
    delta: NDArray[np.float64]
    median: NDArray[np.float64]

    @property
    def rejected(self) -> bool:
        """Whether Kruskal-Wallis finds a difference; the paper looks at pairs only then."""
        # Where there is nothing to test the p-value is 1.
        return self.kruskal_wallis.pvalue < self.alpha

    def comparison(self, left: str, right: str) -> PairComparison:
        """Return one pair, in either order; raises KeyError for a strategy that is not among `members`."""
        for name in (left, right):
            if name not in self.members:
                raise KeyError(f"{name!r} is not among the members with samples: {', '.join(self.members) or 'none'}")
        return self._comparison(self.members.index(left), self.members.index(right))

    def comparisons(self) -> tuple[PairComparison, ...]:
        """Return all pairs once, the member listed first on the left."""
        return tuple(
            self._comparison(row, column)
            for row in range(len(self.members))
            for column in range(row + 1, len(self.members))
        )

    def _comparison(self, row: int, column: int) -> PairComparison:
        delta, medians = float(self.delta[row, column]), (float(self.median[row]), float(self.median[column]))
        # Conover's test is post hoc: without a rejected Kruskal-Wallis the paper looks at no pair.
        significant = self.rejected and bool(self.post_hoc.pvalue[row, column] < self.alpha)
        return PairComparison(
            left=self.members[row],
            right=self.members[column],
            statistic=float(self.post_hoc.statistic[row, column]),
            pvalue=float(self.post_hoc.pvalue[row, column]),
            unadjusted_pvalue=float(self.post_hoc.unadjusted_pvalue[row, column]),
            significant=significant,
            delta=delta,
            magnitude=magnitude(delta),
            # The paper leaves the cells of other pairs empty.
            symbol=delta_symbol(delta) if significant else "",
            # A ratio needs two medians above 0; ranks do not.
            speedup=speedup(*medians) if min(medians) > 0 else None,
        )


@dataclass(frozen=True, eq=False)
class SubjectAnalysis:
    """Everything the paper reports of one subject's latencies.

    Attributes
    ----------
    descriptions : mapping of str to SampleDescription
        Of every strategy with samples, in the input order.
    families : tuple of FamilyAnalysis
        In the input order.
    adjustment : str
        Of the p-values of Conover's test, within each family.
    alpha : float
        The level of all tests.
    """

    descriptions: Mapping[str, SampleDescription]
    families: tuple[FamilyAnalysis, ...]
    adjustment: str
    alpha: float


def analyse_families(
    samples: Mapping[str, ArrayLike],
    families: Sequence[StrategyFamily],
    *,
    adjustment: str = "holm",
    alpha: float = 0.05,
) -> SubjectAnalysis:
    """Analyse one subject's latencies as the paper does.

    Parameters
    ----------
    samples : mapping of str to array_like, shape (samples,)
        By strategy (`operator@placement`), in any one unit, for example seconds. An empty array counts as no data.
    families : sequence of StrategyFamily
        As returned by `study_families`. Members without data are left out, and named in the result.
    adjustment : str
        One of `ADJUSTMENTS`.
    alpha : float
        The level of every test, between 0 and 1.

    Returns
    -------
    SubjectAnalysis

    Raises
    ------
    ValueError
        For a NaN or infinity (with the strategy and the index), an unknown adjustment, or an alpha outside 0 to 1.

    Notes
    -----
    All samples of a strategy are pooled and taken as independent, as in the paper, which overstates certainty for
    repeated inputs and rounds; what decides is the analysis by rounds and inputs (docs/statistics.md).

    Each family is sorted once, and all its tests read that. O(n log n + n k) for k strategies with n samples in all.

    References
    ----------
    Paper, section 4.6.

    Examples
    --------
    >>> members = ("identity@mobile", "identity@edge", "identity@cloud")
    >>> family = StrategyFamily("tiers:identity", "tiers", ("RQ1",), members)
    >>> samples = {"identity@mobile": [8.9, 9.0, 9.1, 9.2], "identity@edge": [5.5, 5.6, 5.7, 5.8]}
    >>> tiers = analyse_families(samples, [family]).families[0]
    >>> edge = tiers.comparison("identity@edge", "identity@mobile")
    >>> edge.symbol, str(edge.speedup), tiers.left_out
    ('-L', '1.60x lower median latency', ('identity@cloud',))
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, got {alpha!r}")
    measured = {name: np.asarray(values, dtype=np.float64) for name, values in samples.items() if np.size(values)}
    descriptions = {name: describe(values, name=name) for name, values in measured.items()}
    # Once per strategy, because a strategy belongs to several families.
    medians = {name: description.median for name, description in descriptions.items()}
    analyses = tuple(_analyse(family, measured, medians, adjustment, alpha) for family in families)
    return SubjectAnalysis(descriptions, analyses, adjustment, alpha)


def _analyse(
    family: StrategyFamily,
    measured: Mapping[str, NDArray[np.float64]],
    medians: Mapping[str, float],
    adjustment: str,
    alpha: float,
) -> FamilyAnalysis:
    members = tuple(name for name in family.members if name in measured)
    # The one sort of the family, which all its tests read.
    pooled = pool_ranks({name: measured[name] for name in members})
    return FamilyAnalysis(
        family=family,
        members=members,
        left_out=tuple(name for name in family.members if name not in measured),
        alpha=alpha,
        kruskal_wallis=kruskal_wallis(pooled),
        post_hoc=conover(pooled, adjustment=adjustment),
        delta=cliffs_delta(pooled),
        median=np.array([medians[name] for name in members]),
    )


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
