"""All of one subject's latencies analysed as in the paper (sections 4.6 and 5), in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.description import SampleDescription, describe
from catalog.statistics.families import StrategyFamily
from catalog.statistics.outcomes import Magnitude, cliffs_delta, delta_symbol, magnitude
from catalog.statistics.rank_tests import Conover, KruskalWallis, conover, kruskal_wallis, pool_ranks


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
